"""Engines' own counts of tokens are held against the ledger: approximately, and what differs by more is told."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from ias.billing.core.booking import Booking
from ias.billing.core.engine_check import EngineCheck
from ias.billing.core.registry_client import RegistryClient
from ias.contracts.usage_messages import check_message
from ias.kit.database import Database
from ias.registry.settings import RegistrySettings
from ias.registry.store.engine_tokens import TokenReading, insert_readings
from ias.registry.wiring import assemble as assemble_registry
from tests.billing.conftest import client_of
from tests.billing.usage import id_at, make_record, message
from tests.kit.token_issuer import SignedTokens, TokenIssuer
from tests.registry.conftest import SECRET_KEY, create_backend, create_model

SERVER = "http://127.0.0.1:9"
NOW = datetime.now(UTC)
FIRST, LAST = NOW - timedelta(minutes=60), NOW - timedelta(minutes=1)


def ago(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


@dataclass
class Engines:
    """A server with two backends, what its engine counted, and what the ledger says."""

    check: EngineCheck
    registry: Database
    ledger: Database
    org_id: str
    backends: list[str] = field(default_factory=list)

    async def count(self, *readings: tuple[datetime, int, int], backend: int = 0) -> None:
        async with self.registry.transaction() as connection:
            backend_id = UUID(self.backends[backend])
            await insert_readings(connection, [TokenReading(backend_id, *reading) for reading in readings])

    async def serve(self, admitted: datetime, over: datetime, tokens: tuple[int, int], **more: Any) -> None:
        record = make_record(
            self.org_id,
            id=id_at(admitted),
            occurred_at=over.isoformat(),
            backend_id=self.backends[more.pop("backend", 0)],
            input_tokens=tokens[0],
            cached_input_tokens=0,
            output_tokens=tokens[1],
            **more,
        )
        await Booking(self.ledger).book(check_message(message(record)).records)

    async def differences(self) -> list[tuple[str, dict[str, int], dict[str, int]]]:
        found = await self.check.list_differences(ago(120), NOW)
        return [(one.server, one.expected, one.found) for one in found]


@pytest.fixture
async def engines(
    database: Database,
    make_migrated_database: Callable[[str], str],
    issuer: TokenIssuer,
    redis_url: str,
    org_id: str,
) -> AsyncIterator[Engines]:
    settings = RegistrySettings(
        registry_database_url=make_migrated_database("registry"),
        redis_url=redis_url,
        bus_url=redis_url,
        secret_key=SECRET_KEY,
        registry_allow_loopback=True,
        registry_prober=False,
    )
    app = assemble_registry(settings, fetch_jwks=issuer.fetch_jwks)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.router.lifespan_context(app))
        admin = await stack.enter_async_context(client_of(app, issuer.platform_admin()))
        http = await stack.enter_async_context(client_of(app))
        registry = Database(settings.registry_database_url.get_secret_value(), settings, application_name="test")
        stack.push_async_callback(registry.close)
        client = RegistryClient(http, SignedTokens(issuer, "billing"), "http://registry")
        check = EngineCheck(database, client, tolerance=0.02, uncertainty=timedelta(seconds=1))
        engines = Engines(check, registry, database, org_id)
        for name in ("tiny", "small"):
            model = await create_model(admin, name)
            backend = await create_backend(admin, model["id"], url=f"{SERVER}/v1", upstream_model=name)
            engines.backends.append(backend["id"])
        yield engines


async def test_an_engine_that_counted_what_was_booked_makes_no_difference(engines: Engines) -> None:
    await engines.serve(ago(50), ago(49), (100_000, 20_000))
    await engines.serve(ago(40), ago(39), (50_000, 10_000), backend=1)  # at the same server
    await engines.count((FIRST, 1_000, 1_000))
    assert await engines.differences() == [], "one reading says nothing yet"
    await engines.count((ago(30), 151_000, 31_000), (LAST, 151_400, 31_400))
    assert await engines.differences() == []


@pytest.mark.parametrize("counted", [(100_000, 20_000), (220_000, 44_000)])
async def test_what_was_under_way_at_either_reading_may_be_in_the_count_or_not(
    engines: Engines, counted: tuple[int, int]
) -> None:
    await engines.serve(ago(50), ago(49), (100_000, 20_000))
    await engines.serve(ago(61), ago(59), (60_000, 12_000))
    await engines.serve(ago(2), ago(0.5), (60_000, 12_000))
    await engines.count((FIRST, 0, 0), (LAST, *counted))
    assert await engines.differences() == []


async def test_an_engine_that_counted_less_than_was_booked_is_told(engines: Engines) -> None:
    await engines.serve(ago(50), ago(49), (100_000, 20_000))
    await engines.count((FIRST, 0, 0), (LAST, 99_900, 15_000))
    assert await engines.differences() == [(SERVER, {"output_tokens": 20_000}, {"output_tokens": 15_000})]


async def test_an_engine_that_served_somebody_else_too_is_told(engines: Engines) -> None:
    await engines.serve(ago(50), ago(49), (100_000, 20_000))
    await engines.count((FIRST, 0, 0), (LAST, 300_000, 20_000))
    assert await engines.differences() == [(SERVER, {"input_tokens": 100_000}, {"input_tokens": 300_000})]


async def test_an_engine_that_was_started_anew_counts_on_from_nothing(engines: Engines) -> None:
    await engines.serve(ago(50), ago(49), (100_000, 20_000))
    await engines.count((FIRST, 500_000, 5_000), (ago(40), 560_000, 17_000), (ago(30), 40_000, 8_000))
    assert await engines.differences() == []
    await engines.serve(ago(20), ago(19), (100_000, 20_000))
    await engines.count((LAST, 40_000, 8_000))
    [(_, expected, found)] = await engines.differences()
    assert (expected, found["restarts"]) == ({"input_tokens": 200_000, "output_tokens": 40_000}, 1)


async def test_what_a_request_used_that_nobody_counted_is_no_lower_bound(engines: Engines) -> None:
    await engines.serve(ago(50), ago(49), (100_000, 20_000), estimated=True)
    await engines.count((FIRST, 0, 0), (LAST, 0, 0))
    assert await engines.differences() == []


async def test_who_is_no_service_of_the_platform_is_told_nothing(engines: Engines, issuer: TokenIssuer) -> None:
    client = engines.check._registry
    for headers in ({}, issuer.platform_admin()):
        answer = await client._http.get(
            "/internal/registry/engine-tokens", params={"start": str(FIRST), "end": str(LAST)}, headers=headers
        )
        assert answer.status_code in (401, 403)
    client._tokens = SignedTokens(issuer, "billing", audience="analytics")
    with pytest.raises(httpx.HTTPStatusError):
        await engines.differences()

"""Other services' audit entries: from their outbox over either bus into the chain, once, whatever dies on the way."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from ias.billing.settings import BillingSettings
from ias.contracts.events import AUDIT_RECORDED, AUDIT_TOPIC, AuditBatch
from ias.contracts.ids import uuid7
from ias.kit import bus, outbox
from ias.kit.audit import Cause, Change, make_records
from ias.kit.database import Database
from tests.billing.conftest import settings_for as billing_settings_for
from tests.identity.platform import Caller, Identity, consuming, eventually
from tests.identity.test_audit_log import check_chain, read_entries

CAUSE = Cause("user", "01900000-0000-7000-8000-0000000000aa", "req_of_billing", "192.0.2.1", "curl")

KILLED_BEFORE_REMOVING = """
import asyncio, os, signal, sys
from prometheus_client import CollectorRegistry
from ias.billing.settings import BillingSettings
from ias.kit.bus import open_publisher
from ias.kit.database import Database
from ias.kit.outbox import Relay

class Fatal:
    def __init__(self, inner):
        self.inner, self.left = inner, 3
    async def publish(self, topic, body, *, message_id):
        await self.inner.publish(topic, body, message_id=message_id)
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)

async def main():
    settings = BillingSettings()
    database = Database(settings.billing_database_url.get_secret_value(), settings, application_name="fatal")
    publisher = Fatal(open_publisher(settings.bus_url.get_secret_value()))
    await Relay("billing", database, publisher, CollectorRegistry()).relay_once()

asyncio.run(main())
"""


@pytest.fixture(params=["redis", "rabbitmq"])
def bus_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def billing_settings(make_migrated_database: Callable[[str], str], redis_url: str, bus_url: str) -> BillingSettings:
    return billing_settings_for(make_migrated_database("billing"), redis_url, bus_url=bus_url)


@pytest.fixture
async def billing(billing_settings: BillingSettings) -> AsyncIterator[Database]:
    database = Database(
        billing_settings.billing_database_url.get_secret_value(), billing_settings, application_name="test"
    )
    yield database
    await database.close()


async def write_changes(billing: Database, org_id: str, number: int) -> None:
    changes = [Change("budget.update", uuid7(), UUID(org_id), {"n": i}, {"n": i + 1}) for i in range(number)]
    async with billing.transaction() as connection:
        await outbox.append(connection, "billing", CAUSE, *changes)


async def count_waiting(billing: Database) -> int:
    async with billing.transaction() as connection:
        return int((await connection.exec_driver_sql("SELECT count(*) FROM outbox")).scalar_one())


def environment(settings: BillingSettings) -> dict[str, str]:
    return {
        "IAS_BILLING_DATABASE_URL": settings.billing_database_url.get_secret_value(),
        "IAS_BUS_URL": settings.bus_url.get_secret_value(),
        "IAS_REDIS_URL": settings.redis_url.get_secret_value(),
        "IAS_SECRET_KEY": settings.secret_key.get_secret_value(),
    }


async def test_an_entry_joins_the_chain_once_though_the_relay_is_killed_between_confirm_and_removal(
    *,
    identity: Identity,
    admin: Caller,
    billing: Database,
    billing_settings: BillingSettings,
    database_url: str,
    redis_url: str,
    bus_url: str,
) -> None:
    org = await admin.ok("POST", "/identity/v1/orgs", {"name": "acme"})
    await write_changes(billing, org["id"], 5)
    command = [sys.executable, "-c", KILLED_BEFORE_REMOVING]
    killed = await asyncio.to_thread(
        subprocess.run, command, env=environment(billing_settings), timeout=60, check=False, capture_output=True
    )
    assert killed.returncode == -9, killed.stderr.decode()
    assert await count_waiting(billing) == 5

    publisher = bus.open_publisher(bus_url)
    relay = outbox.Relay("billing", billing, publisher, CollectorRegistry())
    assert await relay.relay_once() == 5
    await publisher.close()
    assert await count_waiting(billing) == 0

    async with consuming(database_url, redis_url, bus_url) as consumer:

        async def handled() -> bool:
            told = consumer.registry.get_sample_value
            names = ("ias_identity_audit_records_total", "ias_identity_audit_duplicate_deliveries_total")
            return [told(name) for name in names] == [5, 3]

        await eventually(handled, seconds=30)
    chain = [entry for entry in await read_entries(database_url) if entry["chain_id"] == org["id"]]
    check_chain(chain)
    assert [entry["after"]["n"] for entry in chain if entry["service"] == "billing"] == [1, 2, 3, 4, 5]
    last = chain[-1]
    assert (last["actor_id"], last["request_id"], last["user_agent"]) == (CAUSE.actor_id, "req_of_billing", "curl")


async def test_two_consumers_given_the_same_record_at_once_chain_it_once(
    identity: Identity, admin: Caller, database_url: str
) -> None:
    org = await admin.ok("POST", "/identity/v1/orgs", {"name": "acme"})
    records = make_records("billing", CAUSE, [Change("budget.create", uuid7(), UUID(org["id"]))])
    write = identity.app.state.parts.audit_log.write
    assert sorted(await asyncio.gather(*(write(records) for _ in range(4)))) == [0, 0, 0, 1]
    check_chain([entry for entry in await read_entries(database_url) if entry["chain_id"] == org["id"]])


async def test_what_cannot_be_read_is_set_aside_and_the_rest_goes_on(
    identity: Identity, database_url: str, redis_url: str
) -> None:
    [record] = make_records("billing", CAUSE, [Change("price.create", uuid7(), None, None, {"big": 2**60})])
    good = json.loads(msgspec.json.encode(AuditBatch(schema=AUDIT_RECORDED, records=[record])))
    bad: list[Any] = [{"schema": "audit_recorded/9", "records": []}, 5]
    for field, value in (("id", "x"), ("count", 0), ("occurred_at", "yesterday"), ("action", "a\0b"), ("org_id", "x")):
        bad.append({**good, "records": [{**good["records"][0], field: value}]})
    publisher = bus.open_publisher(redis_url)
    for message in [*bad, good]:
        await publisher.publish(AUDIT_TOPIC, json.dumps(message).encode(), message_id=str(uuid7()))
    await publisher.close()

    async with consuming(database_url, redis_url, redis_url) as consumer:

        async def chained() -> bool:
            return consumer.registry.get_sample_value("ias_identity_audit_records_total") == 1

        await eventually(chained)
        refused = consumer.registry.get_sample_value("ias_identity_audit_refused_messages_total")
        assert refused == len(bad)


async def test_while_the_bus_is_away_entries_wait_and_the_metrics_say_so(billing: Database) -> None:
    await write_changes(billing, str(uuid7()), 3)
    registry = CollectorRegistry()
    relay = outbox.Relay("billing", billing, bus.open_publisher("redis://127.0.0.1:1/0"), registry)
    with pytest.raises(Exception, match=r".+"):
        await relay.relay_once()
    assert registry.get_sample_value("ias_billing_outbox_waiting") == 3
    assert (registry.get_sample_value("ias_billing_outbox_lag_seconds") or 0) > 0
    assert await count_waiting(billing) == 3


async def test_a_change_that_is_rolled_back_tells_nobody(billing: Database) -> None:
    with contextlib.suppress(RuntimeError):
        async with billing.transaction() as connection:
            await outbox.append(connection, "billing", CAUSE, Change("price.create", uuid7()))
            raise RuntimeError
    assert await count_waiting(billing) == 0

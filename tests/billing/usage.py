"""Usage records as gateways send them."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import msgspec
from sqlalchemy import text

from ias.contracts.events import USAGE_RECORDED, UsageRecord
from ias.contracts.ids import request_id_of, uuid7
from ias.kit.database import Database

PROJECT_ID, API_KEY_ID, USER_ID = str(uuid4()), str(uuid4()), str(uuid4())


def id_at(moment: datetime) -> UUID:
    """A UUIDv7 as it would have been made at a moment."""
    millis = round(moment.timestamp() * 1000)
    low = uuid7().int & ((1 << 80) - 1)
    return UUID(int=millis << 80 | low)


def make_record(org_id: str, price: dict[str, Any] | None = None, **changed: Any) -> UsageRecord:
    """A record of 1000 input tokens (200 of them cached) and 500 output tokens: 2,000,000 nano-USD at 1 and 2 USD per million."""
    record_id = changed.pop("id", None) or uuid7()
    record = UsageRecord(
        id=str(record_id),
        request_id=request_id_of(record_id),
        occurred_at=datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        org_id=org_id,
        project_id=PROJECT_ID,
        api_key_id=API_KEY_ID,
        user_id=USER_ID,
        service_account_id=None,
        endpoint="/v1/chat/completions",
        model="tiny",
        backend_id=str(uuid4()),
        streamed=True,
        status=200,
        outcome="completed",
        input_tokens=1000,
        cached_input_tokens=200,
        output_tokens=500,
        estimated=False,
        price_id=price["id"] if price else None,
        price_version=price["version"] if price else None,
        cost_nano_usd=2_000_000,
        ttft_ms=25.0,
        duration_ms=400.0,
        decision={"backend": None},
    )
    return msgspec.structs.replace(record, **changed)


def message(*records: UsageRecord | dict[str, Any], schema: str = USAGE_RECORDED) -> bytes:
    return msgspec.json.encode({"schema": schema, "records": list(records)})


def shuffled_deliveries(records: list[UsageRecord], *, times: int, batch: int, seed: int) -> list[bytes]:
    """Every record so many times, in batches of a shuffled order."""
    order = random.Random(seed)  # noqa: S311  # an order to repeat, not a secret
    deliveries = records * times
    order.shuffle(deliveries)
    return [message(*deliveries[start : start + batch]) for start in range(0, len(deliveries), batch)]


async def eventually(holds: Callable[[], Awaitable[Any]], *, within_s: float = 15.0) -> Any:
    """What `holds` gives as soon as it gives something true."""
    deadline = time.monotonic() + within_s
    while True:
        found = await holds()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {within_s} s")
        await asyncio.sleep(0.02)


def broken(record: UsageRecord, **changed: Any) -> dict[str, Any]:
    """A record with changes that no gateway would make."""
    return msgspec.to_builtins(record) | changed


async def read_books(database: Database) -> dict[str, tuple[int, int]]:
    """Entries and nano-USD, by the ledger and by its hourly projection."""
    async with database.transaction() as connection:
        ledger = await connection.execute(text("SELECT count(*), coalesce(sum(cost_nano_usd), 0) FROM ledger_entries"))
        hourly = await connection.execute(
            text("SELECT coalesce(sum(entries), 0), coalesce(sum(cost_nano_usd), 0) FROM spend_hourly")
        )
        return {
            "ledger": tuple(int(figure) for figure in ledger.one()),
            "hourly": tuple(int(figure) for figure in hourly.one()),
        }  # type: ignore[return-value]

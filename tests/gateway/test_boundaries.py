"""Requests around the boundary of windows: each is counted, as it is billed, in the window of the time in its id."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from ias.contracts.spending import Price, Window
from tests.gateway.platform import INPUT_PRICE, OUTPUT_PRICE, RunningGateway, budget
from tests.gateway.raw_client import ask, chat, connect, request_bytes
from tests.gateway.scripted_upstream import Received, ScriptedUpstream, Session, chunk, usage_chunk

COST = (10 * INPUT_PRICE + 5 * OUTPUT_PRICE) // 1_000_000
MIDNIGHT = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
WINDOWS: dict[Window, tuple[str, str]] = {
    "day": ((MIDNIGHT - timedelta(days=1)).strftime("%Y-%m-%d"), MIDNIGHT.strftime("%Y-%m-%d")),
    "rolling_24h": ((MIDNIGHT - timedelta(hours=1)).strftime("%Y-%m-%dT%H"), MIDNIGHT.strftime("%Y-%m-%dT%H")),
}
"""The last window, or part of one, before midnight, and the first one after it."""
BUDGETS = tuple(replace(budget(10**12, name=window), window=window) for window in WINDOWS)

SetTime = Callable[[int], None]


@pytest.fixture
def set_time(monkeypatch: pytest.MonkeyPatch) -> SetTime:
    """Makes it so many milliseconds after midnight for the requests to come."""

    def set_time(after_midnight_ms: int) -> None:
        now_ns = (int(MIDNIGHT.timestamp()) * 1000 + after_midnight_ms) * 1_000_000
        monkeypatch.setattr("ias.gateway.request_ids.time_ns", lambda: now_ns)

    return set_time


async def spent(gateway: RunningGateway) -> dict[str, list[tuple[int, int]]]:
    """Settled and reserved by each budget, before and after midnight."""
    return {window: [await gateway.pushed.counter(window, each) for each in ids] for window, ids in WINDOWS.items()}


async def test_a_stream_that_midnight_overtakes_is_counted_where_it_was_admitted(
    gateway: RunningGateway, upstream: ScriptedUpstream, set_time: SetTime
) -> None:
    async def script(received: Received, session: Session) -> None:
        await session.begin_stream()
        await session.event(chunk("x"))
        if len(upstream.received) == 1:
            set_time(1)
            assert (await ask(gateway.port, chat(stream=True, max_tokens=5), key=gateway.pushed.key)).status == 200
        await session.event(chunk(finish="stop"))
        await session.event(usage_chunk())
        await session.end_stream()

    upstream.script = script
    await gateway.pushed.budgets(*BUDGETS)
    set_time(-1)
    assert (await ask(gateway.port, chat(stream=True, max_tokens=5), key=gateway.pushed.key)).status == 200
    await gateway.until_quiet()
    assert await spent(gateway) == {window: [(COST, 0), (COST, 0)] for window in WINDOWS}
    made_ms = sorted(int(record["id"].replace("-", "")[:12], 16) for record in await gateway.records(2))
    assert [ms - int(MIDNIGHT.timestamp()) * 1000 for ms in made_ms] == [-1, 1]


async def test_a_body_that_takes_until_after_midnight_is_counted_before_it_as_its_id_says(
    gateway: RunningGateway, set_time: SetTime
) -> None:
    """Also where another request has begun the new window in between."""
    await gateway.pushed.budgets(*BUDGETS)
    slow = request_bytes(chat(max_tokens=5), key=gateway.pushed.key)
    async with connect(gateway.port) as client:
        set_time(-1)
        await client.send(slow[:-5])
        await asyncio.sleep(0.1)
        set_time(1)
        assert (await ask(gateway.port, chat(max_tokens=5), key=gateway.pushed.key)).status == 200
        await client.send(slow[-5:])
        assert (await client.read_answer()).status == 200
    assert (await ask(gateway.port, chat(max_tokens=5), key=gateway.pushed.key)).status == 200
    await gateway.until_quiet()
    assert await spent(gateway) == {window: [(COST, 0), (2 * COST, 0)] for window in WINDOWS}


async def test_what_a_day_has_no_room_for_the_next_one_has_and_a_rolling_one_has_not(
    gateway: RunningGateway, set_time: SetTime
) -> None:
    limit = 2_000_000  # bears one request's worst case, and not another beside what it cost
    for window, statuses in (("day", [200, 429, 200]), ("rolling_24h", [200, 429, 429])):
        narrow = replace(budget(limit, name=f"narrow {window}"), window=window)
        await gateway.pushed.budgets(narrow)
        answered = []
        for after_midnight_ms in (-2000, -1000, 1000):
            set_time(after_midnight_ms)
            answered.append((await ask(gateway.port, chat(max_tokens=5), key=gateway.pushed.key)).status)
            await gateway.until_quiet()
            ids = WINDOWS[window]  # type: ignore[index]
            if answered == [200]:
                key = f"ias:{{org-1}}:budget:{narrow.id}:{ids[0]}"
                await gateway.pushed.redis.hset(key, "settled", limit)
        assert answered == statuses, window


async def test_a_price_that_takes_effect_at_midnight_is_for_requests_from_then_on(
    gateway: RunningGateway, set_time: SetTime
) -> None:
    prices = [
        Price(
            id=price_id,
            version=version,
            model="m",
            effective_at=effective_at,
            input_nano_usd_per_million=0,
            cached_input_nano_usd_per_million=0,
            output_nano_usd_per_million=OUTPUT_PRICE * version,
        )
        for version, (price_id, effective_at) in enumerate((("old", 0), ("new", int(MIDNIGHT.timestamp()))), 1)
    ]
    await gateway.pushed.ceilings(prices={"m": tuple(prices)})
    for served, (after_midnight_ms, price_id) in enumerate(((-1, "old"), (0, "new")), 1):
        set_time(after_midnight_ms)
        assert (await ask(gateway.port, chat(max_tokens=5), key=gateway.pushed.key)).status == 200
        assert (await gateway.records(served))[-1]["price_id"] == price_id

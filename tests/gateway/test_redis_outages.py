"""Redis stopped, killed, emptied: requests are refused clearly, nothing hangs, and the books balance afterwards."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from ias.contracts import redis_keys
from ias.gateway.redis_connection import pack, parse_redis_url
from tests.gateway.platform import Pushed, RunningGateway, budget, run_gateway, until
from tests.gateway.raw_client import ask, chat, connect, request_bytes
from tests.gateway.scripted_upstream import Received, ScriptedUpstream, Session, answer_politely
from tests.servers.redis_process import RedisProcess


@pytest.fixture
def own_redis(private_redis: Callable[..., RedisProcess]) -> RedisProcess:
    return private_redis(durable=True)


@pytest.fixture
async def own_gateway(
    own_redis: RedisProcess, upstream: ScriptedUpstream, tmp_path: Path
) -> AsyncIterator[RunningGateway]:
    async with Redis.from_url(own_redis.url) as redis:
        pushed = Pushed(redis)
        await pushed.everything(upstream.url)
        await pushed.budgets(budget(10**12))
        async with run_gateway(own_redis.url, tmp_path, pushed, gateway_redis_timeout_s=0.3) as running:
            await running.until_ready()
            yield running
            await running.until_nothing_is_held()


async def test_while_redis_hangs_requests_are_503_and_afterwards_served(
    own_gateway: RunningGateway, own_redis: RedisProcess
) -> None:
    assert (await ask(own_gateway.port, chat(), key=own_gateway.pushed.key)).status == 200
    own_redis.pause()
    answer = await ask(own_gateway.port, chat(), key=own_gateway.pushed.key)
    assert (answer.status, answer.error["code"]) == (503, "policy_store_unavailable")
    assert answer.headers["retry-after"] == "1"
    ready = await ask(own_gateway.port, method="GET", path="/ready")
    assert (ready.status, ready.document["checks"]["redis"]) == (503, "away")
    assert (await ask(own_gateway.port, method="GET", path="/health")).status == 200
    own_redis.resume()
    await own_gateway.until_ready()
    assert (await ask(own_gateway.port, chat(), key=own_gateway.pushed.key)).status == 200


async def test_a_reservation_whose_reply_was_lost_is_released(
    own_gateway: RunningGateway, own_redis: RedisProcess
) -> None:
    assert (await ask(own_gateway.port, chat(), key=own_gateway.pushed.key)).status == 200
    await own_gateway.until_quiet()
    own_redis.pause()
    assert (await ask(own_gateway.port, chat(), key=own_gateway.pushed.key)).status == 503
    own_redis.resume()
    await own_gateway.until_ready()
    await until(lambda: own_gateway.worker.gateway.settlements.waiting == 0)
    assert await own_gateway.pushed.counter("b1") == (20_000, 0)


async def test_a_worker_that_was_kept_from_running_does_not_blame_redis(own_gateway: RunningGateway) -> None:
    redis = own_gateway.worker.gateway.redis
    replies: list[object] = []
    await asyncio.sleep(0.15)  # the clock has looked a moment ago
    redis.call(pack("PING"), lambda _, reply: replies.append(reply))
    time.sleep(1.0)  # noqa: ASYNC251 - nothing else in the worker runs either, for three times Redis' deadline
    await until(lambda: bool(replies))
    assert not isinstance(replies[0], Exception)
    assert redis.losses == 0


async def test_requests_admitted_before_an_outage_are_settled_after_it(
    own_gateway: RunningGateway, own_redis: RedisProcess, upstream: ScriptedUpstream
) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(received: Received, session: Session) -> None:
        arrived.set()
        await go_on.wait()
        await answer_politely(received, session)

    upstream.script = slowly
    async with connect(own_gateway.port) as client:
        await client.send(request_bytes(chat(), key=own_gateway.pushed.key))
        await arrived.wait()
        own_redis.kill()
        await until(lambda: not own_gateway.worker.gateway.redis.is_ready)
        go_on.set()
        assert (await client.read_answer()).status == 200
    own_redis.start()
    await own_gateway.pushed.redis.connection_pool.disconnect()  # the test's own connection died as well
    await own_gateway.until_ready()
    await until(lambda: own_gateway.worker.gateway.settlements.waiting == 0)
    assert await own_gateway.pushed.counter("b1") == (20_000, 0)


async def test_an_emptied_redis_admits_nothing_until_it_is_filled_again(
    own_gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    assert (await ask(own_gateway.port, chat(), key=own_gateway.pushed.key)).status == 200
    await own_gateway.pushed.redis.flushall()
    await until(lambda: not own_gateway.worker.gateway.snapshots.counters_ready)
    answer = await ask(own_gateway.port, chat(), key=own_gateway.pushed.key)
    assert answer.status in (401, 503)  # the key is gone with the rest, and no identity is there to ask
    await own_gateway.pushed.everything(upstream.url)
    await own_gateway.until_ready()
    assert (await ask(own_gateway.port, chat(), key=own_gateway.pushed.key)).status == 200


@pytest.mark.parametrize("outage", ["paused", "killed"])
async def test_an_org_that_allows_for_it_is_served_without_redis_up_to_a_stated_amount_which_is_counted_afterwards(
    own_gateway: RunningGateway, own_redis: RedisProcess, outage: str
) -> None:
    pushed, gateway = own_gateway.pushed, own_gateway.worker.gateway
    chats = chat(max_tokens=10)
    assert (await ask(own_gateway.port, chats, key=pushed.key)).status == 200
    await own_gateway.until_quiet()
    most = await _worst_case(own_gateway)
    await pushed.ceilings(budgets=(budget(10**12),), unguarded_nano_usd=2 * most)
    async with asyncio.timeout(10):  # the key's documents are read again
        while not any(r.principal and r.principal.unguarded_nano_usd for r in gateway.snapshots._remembered.values()):
            assert (await ask(own_gateway.port, chats, key=pushed.key)).status == 200
    await own_gateway.until_quiet()
    spent, _ = await pushed.counter("b1")
    (own_redis.pause if outage == "paused" else own_redis.kill)()
    statuses = []
    async with asyncio.timeout(20):
        while gateway.redis.is_ready:
            await ask(own_gateway.port, method="GET", path="/v1/models", key=pushed.key)
            await asyncio.sleep(0.05)
    for _ in range(400):
        answer = await ask(own_gateway.port, chats, key=pushed.key)
        statuses.append(answer.status)
        if answer.status != 200:
            break
    assert statuses[:2] == [200, 200]
    assert (statuses[-1], answer.error["code"]) == (503, "policy_store_unavailable")
    assert gateway.unguarded.taken_nano_usd + most > 2 * most >= gateway.unguarded.taken_nano_usd
    (own_redis.resume if outage == "paused" else own_redis.start)()
    await pushed.redis.connection_pool.disconnect()
    await own_gateway.until_ready()
    await until(lambda: gateway.settlements.waiting == 0)
    served = statuses.count(200)
    assert await pushed.counter("b1") == (spent, served * 20_000)
    assert gateway.unguarded.taken_nano_usd == 0
    await pushed.redis.flushall()  # what is held is billing's to close, once it has booked it


async def _worst_case(running: RunningGateway) -> int:
    """What a request of the tests reserves, by its record."""
    return int((await running.records(1))[0]["decision"]["reserved_nano_usd"])


async def test_an_org_that_does_not_allow_for_it_is_refused_while_redis_is_away(
    own_gateway: RunningGateway, own_redis: RedisProcess
) -> None:
    assert (await ask(own_gateway.port, chat(), key=own_gateway.pushed.key)).status == 200
    await own_gateway.until_quiet()
    own_redis.kill()
    await until(lambda: not own_gateway.worker.gateway.redis.is_ready)
    answer = await ask(own_gateway.port, chat(), key=own_gateway.pushed.key)
    assert (answer.status, answer.error["code"]) == (503, "policy_store_unavailable")
    own_redis.start()
    await own_gateway.pushed.redis.connection_pool.disconnect()
    await own_gateway.until_ready()


@pytest.mark.parametrize("loss", ["emptied", "killed"])
async def test_what_a_request_under_way_holds_is_held_again_by_a_redis_that_lost_it(
    own_gateway: RunningGateway, own_redis: RedisProcess, upstream: ScriptedUpstream, loss: str
) -> None:
    """Until billing has booked it, what it cost stays held: no budget knows too little in between."""
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(received: Received, session: Session) -> None:
        arrived.set()
        await go_on.wait()
        await answer_politely(received, session)

    upstream.script = slowly
    pushed, worker = own_gateway.pushed, own_gateway.worker
    async with connect(own_gateway.port) as client:
        await client.send(request_bytes(chat(), key=pushed.key))
        await arrived.wait()
        held = await pushed.counter("b1")
        own_gateway.publisher.is_away = True
        if loss == "killed":
            own_redis.kill()
            own_redis.lose_data()
            await until(lambda: not worker.gateway.redis.is_ready)
            own_redis.start()
            await pushed.redis.connection_pool.disconnect()
        else:
            await pushed.redis.flushall()
        async with asyncio.timeout(10):
            while await pushed.counter("b1") != held:
                await asyncio.sleep(0.01)
        go_on.set()
        assert (await client.read_answer()).status == 200
    async with asyncio.timeout(10):
        while await pushed.counter("b1") != (0, 20_000) or not await pushed.redis.zcard(redis_keys.UNPUBLISHED):
            await asyncio.sleep(0.01)
    own_gateway.publisher.is_away = False
    async with asyncio.timeout(10):
        while await pushed.redis.zcard(redis_keys.UNPUBLISHED):
            await asyncio.sleep(0.01)
    await pushed.redis.flushall()  # what is left is billing's to close


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h:1/2", ("h", 1, None, False, None, None, 2)),
        ("redis://:p%40w@h", ("h", 6379, None, False, None, "p@w", 0)),
        ("rediss://u:p@h:3", ("h", 3, None, True, "u", "p", 0)),
        ("unix://u:p@/a/b.sock?db=4", ("", 0, "/a/b.sock", False, "u", "p", 4)),
    ],
)
def test_redis_urls(url: str, expected: tuple[object, ...]) -> None:
    assert tuple(parse_redis_url(url)) == expected


async def test_a_revoked_key_is_refused_as_soon_as_redis_knows(own_gateway: RunningGateway) -> None:
    assert (await ask(own_gateway.port, chat(), key=own_gateway.pushed.key)).status == 200
    await own_gateway.pushed.api_key(status="revoked", version=2)
    answer = await ask(own_gateway.port, chat(), key=own_gateway.pushed.key)
    for _ in range(50):
        if answer.status == 401:
            break
        answer = await ask(own_gateway.port, chat(), key=own_gateway.pushed.key)
    assert answer.status == 401


async def test_scripts_that_redis_was_made_to_forget_are_given_to_it_again(own_gateway: RunningGateway) -> None:
    assert (await ask(own_gateway.port, chat(), key=own_gateway.pushed.key)).status == 200
    await own_gateway.until_quiet()
    await own_gateway.pushed.redis.script_flush()
    assert (await ask(own_gateway.port, chat(), key=own_gateway.pushed.key)).status == 503
    assert (await ask(own_gateway.port, chat(), key=own_gateway.pushed.key)).status == 200
    await until(lambda: own_gateway.worker.gateway.settlements.waiting == 0)
    assert await own_gateway.pushed.counter("b1") == (40_000, 0)

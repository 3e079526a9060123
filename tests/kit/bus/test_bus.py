"""The same guarantees on RabbitMQ and on Redis Streams."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
from redis.asyncio import Redis

from ias.contracts.events import TOPIC_GROUPS, USAGE_TOPIC
from ias.kit import bus
from ias.kit.bus.redis_streams import _GroupConsumer, consume_redis, dead_letter_stream_name, stream_name

WAIT_S = 20


@pytest.fixture(params=["rabbitmq", "redis"])
def bus_url(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
async def publisher(bus_url: str) -> AsyncIterator[bus.Publisher]:
    publisher = bus.open_publisher(bus_url)
    yield publisher
    await publisher.close()


class Seen:
    """A handler that remembers, and can be told to fail."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.failures_left = 0
        self.poison: set[bytes] = set()
        self._changed = asyncio.Event()

    async def __call__(self, body: bytes) -> None:
        if body in self.poison:
            raise bus.PoisonError("cannot be read")
        if self.failures_left:
            self.failures_left -= 1
            raise ConnectionError("the database is away")
        self.bodies.append(body)
        self._changed.set()

    async def wait_for(self, count: int) -> list[bytes]:
        async with asyncio.timeout(WAIT_S):
            while len(self.bodies) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.bodies


@asynccontextmanager
async def consuming(bus_url: str, group: str, handler: Callable[[bytes], Awaitable[None]]) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(bus.consume(bus_url, USAGE_TOPIC, group, handler, stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, WAIT_S)


async def test_a_message_published_before_any_consumer_ran_reaches_every_group(
    bus_url: str, publisher: bus.Publisher
) -> None:
    await publisher.publish(USAGE_TOPIC, b"first", message_id="1")
    billing, analytics = Seen(), Seen()
    async with consuming(bus_url, "billing", billing), consuming(bus_url, "analytics", analytics):
        assert await billing.wait_for(1) == [b"first"]
        assert await analytics.wait_for(1) == [b"first"]


async def test_a_handled_message_is_not_delivered_again_to_the_group(bus_url: str, publisher: bus.Publisher) -> None:
    seen, later = Seen(), Seen()
    await publisher.publish(USAGE_TOPIC, b"once", message_id="1")
    async with consuming(bus_url, "billing", seen):
        await seen.wait_for(1)
    await publisher.publish(USAGE_TOPIC, b"next", message_id="2")
    async with consuming(bus_url, "billing", later):
        assert await later.wait_for(1) == [b"next"]


async def test_a_message_whose_booking_fails_is_tried_until_it_is_booked(
    bus_url: str, publisher: bus.Publisher
) -> None:
    seen = Seen()
    seen.failures_left = 3
    await publisher.publish(USAGE_TOPIC, b"patience", message_id="1")
    async with consuming(bus_url, "billing", seen):
        assert await seen.wait_for(1) == [b"patience"]
    assert seen.failures_left == 0


async def test_a_message_not_booked_when_the_consumer_stops_stays_with_the_broker(
    bus_url: str, publisher: bus.Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ias.kit.bus.redis_streams._CLAIM_IDLE_MS", 0)
    failing, later = Seen(), Seen()
    failing.failures_left = 1_000_000
    await publisher.publish(USAGE_TOPIC, b"kept", message_id="1")
    async with consuming(bus_url, "billing", failing):
        async with asyncio.timeout(WAIT_S):
            while failing.failures_left == 1_000_000:
                await asyncio.sleep(0.01)
    async with consuming(bus_url, "billing", later):
        assert await later.wait_for(1) == [b"kept"]


async def test_poison_is_set_aside_and_the_rest_goes_on(bus_url: str, publisher: bus.Publisher) -> None:
    seen = Seen()
    seen.poison.add(b"garbage")
    for number, body in enumerate([b"good", b"garbage", b"better"]):
        await publisher.publish(USAGE_TOPIC, body, message_id=str(number))
    async with consuming(bus_url, "billing", seen):
        assert await seen.wait_for(2) == [b"good", b"better"]


@asynccontextmanager
async def dead_letters(bus_url: str, publisher: bus.Publisher, *bodies: bytes) -> AsyncIterator[bus.DeadLetters]:
    """Dead letters of billing with these bodies."""
    seen = Seen()
    seen.poison.update(bodies)
    for number, body in enumerate([*bodies, b"last"]):
        await publisher.publish(USAGE_TOPIC, body, message_id=str(number))
    async with consuming(bus_url, "billing", seen):
        await seen.wait_for(1)
    async with bus.open_dead_letters(bus_url, USAGE_TOPIC, "billing") as letters:
        yield letters


async def test_dead_letters_are_read_oldest_first_and_stay(bus_url: str, publisher: bus.Publisher) -> None:
    async with dead_letters(bus_url, publisher, b"one", b"two", b"three") as letters:
        for _ in range(2):
            assert [letter async for letter in letters.read(2)] == [
                bus.DeadLetter("0", "cannot be read", b"one"),
                bus.DeadLetter("1", "cannot be read", b"two"),
            ]
    async with bus.open_dead_letters(bus_url, USAGE_TOPIC, "billing") as letters:
        assert await letters.count() == 3


async def test_replayed_dead_letters_reach_their_group_again_and_are_gone(
    bus_url: str, publisher: bus.Publisher
) -> None:
    upgraded = Seen()
    async with dead_letters(bus_url, publisher, b"one", b"two") as letters:
        assert await letters.replay(limit=10) == 2
    async with consuming(bus_url, "billing", upgraded):
        assert await upgraded.wait_for(2) == [b"one", b"two"]
    async with bus.open_dead_letters(bus_url, USAGE_TOPIC, "billing") as letters:
        assert await letters.count() == 0
        assert await letters.replay(limit=10) == 0


async def test_a_replayed_message_that_still_cannot_be_booked_comes_back_once(
    bus_url: str, publisher: bus.Publisher
) -> None:
    seen = Seen()
    seen.poison.add(b"garbage")
    async with dead_letters(bus_url, publisher, b"garbage") as letters:
        assert await letters.replay(limit=10) == 1
    await publisher.publish(USAGE_TOPIC, b"behind", message_id="9")
    async with consuming(bus_url, "billing", seen):
        assert await seen.wait_for(1) == [b"behind"]
    async with bus.open_dead_letters(bus_url, USAGE_TOPIC, "billing") as letters:
        assert [letter.body async for letter in letters.read(10)] == [b"garbage"]


async def test_removed_dead_letters_are_kept_elsewhere_first(bus_url: str, publisher: bus.Publisher) -> None:
    kept: list[bus.DeadLetter] = []

    def keep(letter: bus.DeadLetter) -> None:
        if letter.body == b"two":
            raise OSError("the disk is full")
        kept.append(letter)

    async with dead_letters(bus_url, publisher, b"one", b"two") as letters:
        with pytest.raises(OSError, match="full"):
            await letters.remove(10, keep)
    assert [letter.body for letter in kept] == [b"one"]
    async with bus.open_dead_letters(bus_url, USAGE_TOPIC, "billing") as letters:
        assert [letter.body async for letter in letters.read(10)] == [b"two"]


async def test_what_a_group_has_not_taken_is_counted(bus_url: str, publisher: bus.Publisher) -> None:
    assert await bus.count_waiting(bus_url, USAGE_TOPIC, "billing") == 0
    for body in (b"1", b"2"):
        await publisher.publish(USAGE_TOPIC, body, message_id=body.decode())
    async with asyncio.timeout(WAIT_S):
        while await bus.count_waiting(bus_url, USAGE_TOPIC, "billing") != 2:
            await asyncio.sleep(0.05)
    seen = Seen()
    async with consuming(bus_url, "billing", seen):
        await seen.wait_for(2)
    async with asyncio.timeout(WAIT_S):
        while await bus.count_waiting(bus_url, USAGE_TOPIC, "billing") != 0:
            await asyncio.sleep(0.05)
    assert await bus.count_waiting(bus_url, USAGE_TOPIC, "analytics") == 2


async def test_publishing_to_a_broker_that_is_away_raises() -> None:
    for url in ("amqp://guest:guest@127.0.0.1:1/", "redis://127.0.0.1:1/0"):
        publisher = bus.open_publisher(url)
        with pytest.raises(Exception, match=r".*"):  # the adapters' own exceptions differ
            await publisher.publish(USAGE_TOPIC, b"x", message_id="1")
        await publisher.close()


def test_an_unknown_scheme_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="kafka"):
        bus.open_publisher("kafka://127.0.0.1")


async def test_dead_letters_in_redis_carry_the_reason(redis_url: str) -> None:
    publisher = bus.open_publisher(redis_url)
    seen = Seen()
    seen.poison.add(b"garbage")
    await publisher.publish(USAGE_TOPIC, b"garbage", message_id="7")
    await publisher.publish(USAGE_TOPIC, b"good", message_id="8")
    async with consuming(redis_url, "billing", seen):
        await seen.wait_for(1)
    await publisher.close()
    async with Redis.from_url(redis_url) as client:
        [(_, fields)] = await client.xrange(dead_letter_stream_name(USAGE_TOPIC, "billing"))
    assert fields == {b"id": b"7", b"body": b"garbage", b"reason": b"cannot be read"}


async def test_a_full_stream_refuses_instead_of_growing(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ias.kit.bus.redis_streams.QUEUE_LENGTH_MAX", 2)
    publisher = bus.open_publisher(redis_url)
    await publisher.publish(USAGE_TOPIC, b"1", message_id="1")
    await publisher.publish(USAGE_TOPIC, b"2", message_id="2")
    with pytest.raises(bus.BusFullError):
        await publisher.publish(USAGE_TOPIC, b"3", message_id="3")
    await publisher.close()


async def test_a_full_queue_refuses_until_its_group_has_made_room(
    rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ias.kit.bus.rabbitmq.QUEUE_LENGTH_MAX", 2)
    publisher = bus.open_publisher(rabbitmq_url)
    taken = 0
    with suppress(bus.BusFullError):
        for taken in range(20):  # a quorum queue counts a little behind
            await publisher.publish(USAGE_TOPIC, b"%d" % taken, message_id=str(taken))
    assert 2 <= taken < 19
    groups = {group: Seen() for group in TOPIC_GROUPS[USAGE_TOPIC]}
    async with AsyncExitStack() as stack:
        for group, seen in groups.items():
            await stack.enter_async_context(consuming(rabbitmq_url, group, seen))
        for seen in groups.values():
            await seen.wait_for(taken)
        async with asyncio.timeout(WAIT_S):
            while True:
                with suppress(bus.BusFullError):
                    await publisher.publish(USAGE_TOPIC, b"room", message_id="room")
                    break
        for seen in groups.values():
            await seen.wait_for(taken + 1)
    await publisher.close()


async def test_the_stream_is_trimmed_only_of_what_every_group_acknowledged(redis_url: str) -> None:
    publisher = bus.open_publisher(redis_url)
    for number in range(5):
        await publisher.publish(USAGE_TOPIC, b"%d" % number, message_id=str(number))
    await publisher.close()
    seen = Seen()
    async with Redis.from_url(redis_url) as client:
        async with consuming(redis_url, "billing", seen):
            await seen.wait_for(5)
        billing = _GroupConsumer(client, USAGE_TOPIC, "billing", seen, asyncio.Event())
        await billing._trim()
        others = [group for group in TOPIC_GROUPS[USAGE_TOPIC] if group != "billing"]
        for group in others:
            assert await client.xlen(stream_name(USAGE_TOPIC)) == 5, f"{group} has read nothing yet"
            other = Seen()
            async with consuming(redis_url, group, other):
                await other.wait_for(5)
            await billing._trim()
        assert await client.xlen(stream_name(USAGE_TOPIC)) <= 1


async def test_a_consumer_survives_a_redis_that_lost_its_data(redis_url: str) -> None:
    publisher = bus.open_publisher(redis_url)
    seen = Seen()
    stop = asyncio.Event()
    task = asyncio.create_task(consume_redis(redis_url, USAGE_TOPIC, "billing", seen, stop))
    await publisher.publish(USAGE_TOPIC, b"before", message_id="1")
    await seen.wait_for(1)
    async with Redis.from_url(redis_url) as client:
        await client.flushall()
    await publisher.publish(USAGE_TOPIC, b"after", message_id="2")
    assert (await seen.wait_for(2))[-1] == b"after"
    stop.set()
    await asyncio.wait_for(task, WAIT_S)
    await publisher.close()

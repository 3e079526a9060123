"""The servers the other tests stand on."""

from collections.abc import Callable

import aio_pika
import asyncpg
import redis.asyncio as redis

from tests.servers.redis_process import RedisProcess


async def test_redis_is_empty_at_the_start_of_each_test(redis_url: str) -> None:
    async with redis.Redis.from_url(redis_url) as client:
        assert await client.dbsize() == 0
        await client.set("left", "behind")


async def test_redis_is_empty_again(redis_url: str) -> None:
    async with redis.Redis.from_url(redis_url) as client:
        assert await client.dbsize() == 0
        await client.set("left", "behind")


async def test_each_database_is_new(make_database: Callable[[str], str]) -> None:
    dsns = {make_database("billing"), make_database("billing")}
    assert len(dsns) == 2
    for dsn in dsns:
        connection = await asyncpg.connect(dsn)
        await connection.execute("CREATE TABLE t (id int)")
        await connection.close()


async def test_rabbitmq_keeps_a_confirmed_message(rabbitmq_url: str) -> None:
    async with await aio_pika.connect_robust(rabbitmq_url) as connection:
        channel = await connection.channel(publisher_confirms=True)
        queue = await channel.declare_queue("q", durable=True, arguments={"x-queue-type": "quorum"})
        await channel.default_exchange.publish(aio_pika.Message(b"kept"), routing_key="q")
        message = await queue.get(timeout=10)
        assert message is not None
        assert message.body == b"kept"
        await message.ack()


async def test_a_killed_durable_redis_comes_back_with_its_data(private_redis: Callable[..., RedisProcess]) -> None:
    process = private_redis(durable=True)
    async with redis.Redis.from_url(process.url) as client:
        await client.set("k", "v")
    process.kill()
    process.start()
    async with redis.Redis.from_url(process.url) as client:
        assert await client.get("k") == b"v"

"""A newer document is never replaced by an older one."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ias.kit.redis_documents import RedisDocuments, open_redis
from tests.servers.redis_process import RedisProcess


class Document(msgspec.Struct, frozen=True):
    version: int
    text: str


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = open_redis(redis_url, 5)
    yield client
    await client.aclose()


async def read(redis: Redis, key: str = "d") -> Document:
    return msgspec.json.decode(await redis.get(key), type=Document)


async def test_a_newer_or_equal_version_replaces_and_an_older_does_not(redis: Redis) -> None:
    documents = RedisDocuments(redis)
    assert await documents.put("d", Document(5, "five"), version=5)
    assert not await documents.put("d", Document(4, "four"), version=4)
    assert await read(redis) == Document(5, "five")
    assert await documents.put("d", Document(5, "five again"), version=5)
    assert await documents.put("d", Document(6, "six"), version=6)
    assert await read(redis) == Document(6, "six")


async def test_versions_are_numbers_and_not_texts(redis: Redis) -> None:
    documents = RedisDocuments(redis)
    await documents.put("d", Document(9, "nine"), version=9)
    assert await documents.put("d", Document(10, "ten"), version=10)
    assert not await documents.put("d", Document(9, "nine"), version=9)


async def test_concurrent_writers_leave_the_newest(redis: Redis) -> None:
    documents = RedisDocuments(redis)
    versions = list(range(100))
    random.shuffle(versions)
    await asyncio.gather(*(documents.put("d", Document(v, str(v)), version=v) for v in versions[:15]))
    for version in versions[15:]:
        await documents.put("d", Document(version, str(version)), version=version)
    assert await read(redis) == Document(99, "99")


async def test_many_are_put_at_once_each_by_the_same_rule(redis: Redis) -> None:
    documents = RedisDocuments(redis)
    await documents.put("b", Document(7, "newer"), version=7)
    await documents.put_all({"a": Document(1, "a"), "b": Document(2, "older"), "c": Document(3, "c")})
    assert [(await read(redis, key)).text for key in "abc"] == ["a", "newer", "c"]


async def test_nothing_at_all_can_be_put(redis: Redis) -> None:
    await RedisDocuments(redis).put_all({})


@pytest.mark.parametrize("stored", ["not json", "[]", "7", '{"version": null}', '{"version": "9"}', "null", ""])
async def test_what_is_no_document_is_replaced(redis: Redis, stored: str) -> None:
    await redis.set("d", stored)
    assert await RedisDocuments(redis).put("d", Document(1, "good"), version=1)
    assert await read(redis) == Document(1, "good")


async def test_a_redis_that_forgot_the_script_learns_it_again(redis: Redis) -> None:
    documents = RedisDocuments(redis)
    await documents.put("d", Document(1, "one"), version=1)
    await redis.script_flush()
    await documents.put("d", Document(2, "two"), version=2)
    await redis.script_flush()
    await documents.put_all({"d": Document(3, "three")})
    assert await read(redis) == Document(3, "three")


async def test_a_redis_that_hangs_is_an_error_within_the_deadline(private_redis: Callable[..., RedisProcess]) -> None:
    process = private_redis()
    client = open_redis(process.url, 0.2)
    documents = RedisDocuments(client)
    await documents.put("d", Document(1, "one"), version=1)
    process.pause()
    try:
        with pytest.raises((RedisError, OSError)):
            await documents.put("d", Document(2, "two"), version=2)
    finally:
        process.resume()
    await documents.put("d", Document(3, "three"), version=3)
    assert await read(client) == Document(3, "three")
    await client.aclose()

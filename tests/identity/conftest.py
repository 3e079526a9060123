from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest
from redis.asyncio import Redis

from ias.contracts import redis_keys
from ias.contracts.api_keys import KeyRecord, digest_key
from tests.identity.mailbox import Mailbox, open_mailbox
from tests.identity.platform import Caller, Identity, running, settings_for


@pytest.fixture
def database_url(make_migrated_database: Callable[[str], str]) -> str:
    return make_migrated_database("identity")


@pytest.fixture
async def mailbox() -> AsyncIterator[Mailbox]:
    async with open_mailbox() as opened:
        yield opened


@pytest.fixture
async def identity(database_url: str, redis_url: str, mailbox: Mailbox) -> AsyncIterator[Identity]:
    async with running(settings_for(database_url, redis_url, smtp_url=mailbox.url)) as service:
        yield service


@pytest.fixture
async def admin(identity: Identity) -> Caller:
    return await identity.sign_in()


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def read_key(redis: Redis) -> Callable[[str], Awaitable[KeyRecord]]:
    """What Redis, and so every gateway, knows of a key."""

    async def read(key: str) -> KeyRecord:
        return msgspec.json.decode(await redis.get(redis_keys.api_key(digest_key(key))) or b"", type=KeyRecord)

    return read

from collections.abc import AsyncIterator, Callable

import pytest
from redis.asyncio import Redis

from ias.kit.migrations import migrate
from tests.identity.mailbox import Mailbox, open_mailbox
from tests.identity.platform import Caller, Identity, running, settings_for


@pytest.fixture
def database_url(make_database: Callable[[str], str]) -> str:
    url = make_database("ias_identity")
    migrate("identity", url)
    return url


@pytest.fixture
async def mailbox() -> AsyncIterator[Mailbox]:
    async with open_mailbox() as opened:
        yield opened


@pytest.fixture
async def identity(database_url: str, redis_url: str, mailbox: Mailbox) -> AsyncIterator[Identity]:
    async with running(settings_for(database_url, redis_url, identity_smtp_url=mailbox.url)) as service:
        yield service


@pytest.fixture
async def admin(identity: Identity) -> Caller:
    return await identity.sign_in()


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client

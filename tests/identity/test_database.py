"""The migrations and the tables in the code describe one database."""

from collections.abc import Callable

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from ias.identity.store.tables import metadata
from ias.kit.migrations import migrate
from tests.identity.database import fetch
from tests.identity.platform import ADMIN_PASSWORD, running, settings_for


async def test_the_migrated_database_is_what_the_tables_say(database_url: str) -> None:
    engine = create_async_engine(database_url.replace("postgresql://", "postgresql+asyncpg://"))

    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        return list(compare_metadata(context, metadata))

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()


def test_migrations_run_twice_and_back(make_database: Callable[[str], str]) -> None:
    url = make_database("ias_identity")
    migrate("identity", url)
    migrate("identity", url)
    migrate("identity", url, revision="base")
    migrate("identity", url)


async def test_the_first_administrator_is_made_once_and_keeps_their_password(database_url: str, redis_url: str) -> None:
    async with running(settings_for(database_url, redis_url)):
        pass
    settings = settings_for(database_url, redis_url, identity_admin_email="other@example.com")
    async with running(settings) as identity:
        await identity.sign_in(password=ADMIN_PASSWORD)
    rows = await fetch(database_url, "SELECT email FROM users WHERE platform_admin")
    assert [row["email"] for row in rows] == ["root@example.com"]


async def test_two_processes_that_start_together_agree_on_one_signing_key(database_url: str, redis_url: str) -> None:
    settings = settings_for(database_url, redis_url)
    async with running(settings) as first, running(settings) as second:
        caller = await first.sign_in()
        neighbour = await second.anonymous()
        neighbour.headers["authorization"] = caller.headers["authorization"]
        await neighbour.ok("GET", "/identity/v1/me")
    assert len(await fetch(database_url, "SELECT 1 FROM signing_keys")) == 1

"""A transaction reaches the rows of the orgs that were said before it began, and no others."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from ias.kit.database import Database
from ias.kit.row_security import build_wall, build_wall_behind, narrow, reaching_every_org, remove_wall
from ias.kit.settings import ServiceSettings

OWN, OTHER = uuid4(), uuid4()


@pytest.fixture
async def database(make_database: Callable[[str], str]) -> AsyncIterator[Database]:
    settings = ServiceSettings(secret_key=base64.b64encode(bytes(32)).decode(), redis_url="redis://127.0.0.1:1/0")  # type: ignore[arg-type]
    database = Database(make_database("kit"), settings, application_name="test")
    async with database.transaction() as connection:
        for statement in (
            "CREATE TABLE things (id uuid PRIMARY KEY, org_id uuid NOT NULL)",
            "CREATE TABLE parts (thing_id uuid NOT NULL)",
            "INSERT INTO things VALUES (:own, :own), (:other, :other)",
            "INSERT INTO parts VALUES (:own), (:other)",
            *build_wall("things"),
            *build_wall_behind("parts", parent="things", reference="thing_id"),
        ):
            await connection.execute(text(statement), {"own": OWN, "other": OTHER} if ":own" in statement else {})
    yield database
    await database.close()


async def read(database: Database) -> tuple[set[UUID], set[UUID]]:
    async with database.transaction() as connection:
        things = set((await connection.execute(text("SELECT org_id FROM things"))).scalars())
        return things, set((await connection.execute(text("SELECT thing_id FROM parts"))).scalars())


async def test_a_narrowed_block_sees_its_orgs_alone_and_what_comes_after_sees_all(database: Database) -> None:
    with reaching_every_org():
        narrow([str(OWN)])
        assert await read(database) == ({OWN}, {OWN})
        narrow([])
        assert await read(database) == (set(), set())
        narrow([str(OWN), str(OTHER)])
        assert await read(database) == ({OWN, OTHER}, {OWN, OTHER})
    assert await read(database) == ({OWN, OTHER}, {OWN, OTHER})


async def test_what_is_narrowed_in_one_task_stays_there(database: Database) -> None:
    async def narrowed() -> tuple[set[UUID], set[UUID]]:
        narrow([str(OWN)])
        return await read(database)

    assert await asyncio.gather(*(asyncio.create_task(narrowed()) for _ in range(3))) == [({OWN}, {OWN})] * 3
    assert await read(database) == ({OWN, OTHER}, {OWN, OTHER})


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO things VALUES (gen_random_uuid(), :other)",
        "UPDATE things SET org_id = :other",
        "INSERT INTO parts VALUES (:other)",
    ],
)
async def test_a_row_of_another_org_cannot_be_written(database: Database, statement: str) -> None:
    with reaching_every_org():
        narrow([str(OWN)])
        with pytest.raises(DBAPIError, match="row-level security"):
            async with database.transaction() as connection:
                await connection.execute(text(statement), {"other": OTHER})


async def test_the_isolation_level_can_still_be_chosen(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        assert (await connection.execute(text("SHOW transaction_isolation"))).scalar_one() == "repeatable read"


async def test_what_is_no_uuid_does_not_get_into_a_statement(database: Database) -> None:
    with reaching_every_org():
        narrow(["*", f"{OWN}'; --", f"{OTHER},*", "org"])
        assert await read(database) == (set(), set())


async def test_a_wall_can_be_taken_down(database: Database) -> None:
    async with database.transaction() as connection:
        for statement in [*remove_wall("parts"), *remove_wall("things")]:
            await connection.execute(text(statement))
    with reaching_every_org():
        narrow([])
        assert await read(database) == ({OWN, OTHER}, {OWN, OTHER})

"""A management write is made whole or not at all, tried without a trace, and done once however often it is sent."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import FastAPI, Response
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.kit.authorization import signed_in
from ias.kit.database import Database
from ias.kit.problems import ConflictError, NotFoundError
from ias.kit.routing import Router, in_steps
from ias.kit.settings import ServiceSettings
from ias.kit.tokens import MANAGEMENT_AUDIENCE, Claims, TokenVerifier
from ias.kit.web import Answer, Body, create_app
from ias.kit.writes import after_commit, check_version, is_dry_run, note_change, regardless
from tests.kit.token_issuer import TokenIssuer, bearer

TABLES = """
    CREATE TABLE notes (id uuid PRIMARY KEY, title text NOT NULL UNIQUE DEFERRABLE INITIALLY DEFERRED, version int NOT NULL);
    CREATE TABLE tries (id serial PRIMARY KEY);
    CREATE TABLE idempotency_keys
        (digest bytea PRIMARY KEY, fingerprint bytea NOT NULL, sealed_answer text NOT NULL, expires_at timestamptz NOT NULL)
"""
NOTES = "/probe/v1/notes"
KEY = {"Idempotency-Key": "first-try"}
POOL_SIZE = 10

Actor = Annotated[Claims, signed_in()]


class NoteBody(Body):
    title: str


class NoteAnswer(Answer):
    id: UUID
    title: str
    version: int


class Probe:
    """A service with one noun, and what its writes told the world."""

    def __init__(self, database_url: str) -> None:
        self.settings = ServiceSettings(
            secret_key=SecretStr(base64.b64encode(bytes(32)).decode()),
            redis_url=SecretStr("redis://127.0.0.1:1/0"),
            database_timeout_s=5,
            database_pool_size=POOL_SIZE,
        )
        self.database = Database(database_url, self.settings, application_name="test")
        self.told: list[str] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.entered = asyncio.Event()
        self.tied = asyncio.Barrier(2)

    async def query(self, statement: str) -> list[Any]:
        async with self.database.transaction() as connection:
            return list((await connection.execute(text(statement))).scalars())

    def build(self) -> FastAPI:
        router = Router(prefix="/probe/v1")
        self._add_notes(router)
        self._add_odd_ones(router)

        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            yield
            await self.database.close()

        return create_app("probe", description="A probe.", routers=[router], lifespan=lifespan, settings=self.settings)

    async def _tell(self, what: str) -> None:
        self.told.append(what)

    def _add_notes(self, router: Router) -> None:
        @router.post("/notes", status_code=201)
        async def create_note(body: NoteBody, _: Actor) -> NoteAnswer:
            note = NoteAnswer(id=uuid4(), title=body.title, version=1)
            async with self.database.transaction() as connection:
                await insert(connection, note)
                note_change("note.create", note.id, after={"title": body.title})
            self.entered.set()
            await self.hold.wait()
            await after_commit(lambda: self._tell(body.title))
            return note

        @router.get("/notes/{note_id}")
        async def get_note(note_id: UUID, _: Actor) -> NoteAnswer:
            async with self.database.transaction() as connection:
                return await find(connection, note_id)

        @router.patch("/notes/{note_id}")
        async def update_note(note_id: UUID, body: NoteBody, _: Actor) -> NoteAnswer:
            async with self.database.transaction() as connection:
                await connection.execute(text("SELECT 1 FROM notes WHERE id = :id FOR UPDATE"), {"id": note_id})
                note = await find(connection, note_id)
                check_version(note.version)
                values = {"id": note_id, "title": body.title}
                await connection.execute(
                    text("UPDATE notes SET title = :title, version = version + 1 WHERE id = :id"), values
                )
                note_change("note.update", note_id, before={"title": note.title}, after={"title": body.title})
                return await find(connection, note_id)

        @router.delete("/notes/{note_id}", status_code=204)
        async def delete_note(note_id: UUID, _: Actor) -> None:
            async with self.database.transaction() as connection:
                check_version((await find(connection, note_id)).version)
                await connection.execute(text("DELETE FROM notes WHERE id = :id"), {"id": note_id})
                note_change("note.delete", note_id)

    def _add_odd_ones(self, router: Router) -> None:
        @router.post("/pairs", status_code=201)
        async def create_pair(body: NoteBody, _: Actor) -> NoteAnswer:
            first = NoteAnswer(id=uuid4(), title=body.title, version=1)
            async with self.database.transaction() as connection:
                await insert(connection, first)
            try:
                async with self.database.transaction() as connection:
                    await insert(connection, NoteAnswer(id=first.id, title="same id", version=1))
            except IntegrityError:
                pass  # what a block did before it raised is undone, and the block before it is not
            async with self.database.transaction() as connection:
                await insert(connection, NoteAnswer(id=uuid4(), title="second", version=1))
            if body.title == "fails":
                raise ConflictError("After both.")
            return first

        @router.post("/tries")
        async def try_it(_: Actor) -> NoteAnswer:
            async with self.database.transaction() as connection:
                await insert(connection, NoteAnswer(id=uuid4(), title="tried", version=1))
            await regardless(self.count_try)
            raise ConflictError("It was counted.")

        @router.put("/knots/{first}/{second}", status_code=204)
        async def lock_in_order(first: int, second: int, _: Actor) -> None:
            async with self.database.transaction() as connection:
                await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": first})
                await self.tied.wait()
                await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": second})

        @router.delete("/everything", status_code=204)
        async def delete_everything(_: Actor) -> None:
            async with self.database.transaction() as connection:
                await connection.execute(text("DELETE FROM notes"))

        @router.post("/steps", openapi_extra=in_steps("a test"))
        async def take_steps(_: Actor, response: Response) -> NoteAnswer:
            note_change("note.create", "one")
            if not is_dry_run():
                async with self.database.transaction() as connection:
                    await insert(connection, NoteAnswer(id=uuid4(), title="step", version=1))
            raise_late = response.headers.get("x-never")
            assert raise_late is None
            return NoteAnswer(id=uuid4(), title="step", version=1)

    async def count_try(self) -> None:
        async with self.database.transaction() as connection:
            await connection.execute(text("INSERT INTO tries DEFAULT VALUES"))


async def insert(connection: AsyncConnection, note: NoteAnswer) -> None:
    await connection.execute(text("INSERT INTO notes VALUES (:id, :title, :version)"), note.model_dump())


async def find(connection: AsyncConnection, note_id: UUID) -> NoteAnswer:
    found = await connection.execute(text("SELECT * FROM notes WHERE id = :id"), {"id": note_id})
    row = found.mappings().one_or_none()
    if row is None:
        raise NotFoundError
    return NoteAnswer(**row)


@pytest.fixture
def issuer() -> Iterator[TokenIssuer]:
    return TokenIssuer()


@pytest.fixture
async def probe(make_database: Callable[[str], str]) -> Probe:
    made = Probe(make_database("writes"))
    async with made.database.transaction() as connection:
        for statement in TABLES.split(";"):
            await connection.execute(text(statement))
    return made


@pytest.fixture
async def client(probe: Probe, issuer: TokenIssuer) -> AsyncIterator[httpx.AsyncClient]:
    app = probe.build()
    app.state.verifier = TokenVerifier(issuer.fetch_jwks, audience=MANAGEMENT_AUDIENCE)
    transport = httpx.ASGITransport(app=app)
    headers = bearer(issuer.sign())
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://x", headers=headers) as client,
    ):
        yield client


async def create(client: httpx.AsyncClient, title: str = "first") -> httpx.Response:
    answer = await client.post(NOTES, json={"title": title})
    assert answer.status_code == 201, answer.text
    return answer


async def test_a_dry_run_tells_what_would_change_and_leaves_no_trace(client: httpx.AsyncClient, probe: Probe) -> None:
    note = (await create(client)).json()
    told = [*probe.told]
    tried = await client.post(f"{NOTES}?dry_run=true", json={"title": "second"}, headers=KEY)
    assert tried.status_code == 200
    assert tried.json()["dry_run"] is True
    (change,) = tried.json()["changes"]
    assert (change["action"], change["target_kind"]) == ("note.create", "note")
    assert (change["before"], change["after"]) == (None, {"title": "second"})
    tried = await client.patch(f"{NOTES}/{note['id']}?dry_run=true", json={"title": "third"})
    (change,) = tried.json()["changes"]
    assert (change["before"], change["after"]) == ({"title": "first"}, {"title": "third"})
    assert (await client.delete(f"{NOTES}/{note['id']}?dry_run=true")).json()["changes"][0]["action"] == "note.delete"
    assert await probe.query("SELECT title FROM notes") == ["first"]
    assert await probe.query("SELECT count(*) FROM idempotency_keys") == [0]
    assert probe.told == told


async def test_a_dry_run_fails_where_the_change_would_even_when_that_shows_only_at_the_commit(
    client: httpx.AsyncClient, probe: Probe
) -> None:
    await create(client)
    assert (await client.post(f"{NOTES}?dry_run=true", json={"title": "first"})).status_code == 409
    assert (await client.patch(f"{NOTES}/{uuid4()}?dry_run=true", json={"title": "x"})).status_code == 404
    assert (await client.post(f"{NOTES}?dry_run=true", json={"tilte": "x"})).status_code == 422
    assert (await client.post(f"{NOTES}?dry_run=perhaps", json={"title": "x"})).status_code == 422


async def test_a_write_is_made_as_a_whole_or_not_at_all(client: httpx.AsyncClient, probe: Probe) -> None:
    assert (await client.post("/probe/v1/pairs", json={"title": "fails"})).status_code == 409
    assert await probe.query("SELECT title FROM notes") == []
    assert (await client.post("/probe/v1/pairs", json={"title": "works"})).status_code == 201
    assert await probe.query("SELECT title FROM notes ORDER BY 1") == ["second", "works"]


async def test_what_is_to_stay_stays_though_the_write_fails(client: httpx.AsyncClient, probe: Probe) -> None:
    for path in ("/probe/v1/tries", "/probe/v1/tries?dry_run=true"):
        assert (await client.post(path)).status_code == 409
    assert await probe.query("SELECT count(*) FROM tries") == [2]
    assert await probe.query("SELECT title FROM notes") == []


async def test_as_many_failing_writes_as_there_are_connections_do_not_wait_for_each_other(
    client: httpx.AsyncClient, probe: Probe
) -> None:
    answers = await asyncio.gather(*(client.post("/probe/v1/tries") for _ in range(2 * POOL_SIZE)))
    assert {answer.status_code for answer in answers} == {409}
    assert await probe.query("SELECT count(*) FROM tries") == [2 * POOL_SIZE]


async def test_of_two_writes_that_wait_for_each_other_one_is_told_to_try_again(client: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(client.put("/probe/v1/knots/1/2"), client.put("/probe/v1/knots/2/1"))
    made, ended = sorted(answers, key=lambda answer: answer.status_code)
    assert (made.status_code, ended.status_code) == (204, 503)
    assert ended.headers["retry-after"] == "1"


async def test_the_world_is_told_after_the_commit_and_never_of_what_failed(
    client: httpx.AsyncClient, probe: Probe
) -> None:
    probe.hold.clear()
    waiting = asyncio.create_task(client.post(NOTES, json={"title": "slow"}))
    await probe.entered.wait()
    assert await probe.query("SELECT title FROM notes") == []
    probe.hold.set()
    assert (await waiting).status_code == 201
    assert probe.told == ["slow"]
    assert (await client.post(NOTES, json={"title": "slow"})).status_code == 409
    assert probe.told == ["slow"]


async def test_a_write_in_steps_heeds_a_dry_run_by_itself(client: httpx.AsyncClient, probe: Probe) -> None:
    tried = await client.post("/probe/v1/steps?dry_run=1")
    assert [change["target_id"] for change in tried.json()["changes"]] == ["one"]
    assert await probe.query("SELECT title FROM notes") == []
    assert (await client.post("/probe/v1/steps")).json()["title"] == "step"
    assert await probe.query("SELECT title FROM notes") == ["step"]


async def test_of_two_changes_decided_on_the_same_version_exactly_one_is_made(
    client: httpx.AsyncClient, probe: Probe
) -> None:
    path = f"{NOTES}/{(await create(client)).json()['id']}"
    for _ in range(5):
        seen = {"If-Match": (await client.get(path)).headers["etag"]}
        answers = await asyncio.gather(*(client.patch(path, json={"title": f"by {n}"}, headers=seen) for n in range(4)))
        assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412]
        (won,) = (answer for answer in answers if answer.status_code == 200)
        assert (await client.get(path)).json() == won.json()
        assert (await client.get(path)).headers["etag"] == won.headers["etag"]
    assert await probe.query("SELECT version FROM notes") == [6]


async def test_if_match_is_heeded_or_refused_and_never_passed_over(client: httpx.AsyncClient, probe: Probe) -> None:
    created = await create(client)
    path = f"{NOTES}/{created.json()['id']}"
    for tag in ('"7"', f"W/{created.headers['etag']}", "nonsense"):
        assert (await client.delete(path, headers={"If-Match": tag})).status_code == 412
    assert (await client.delete("/probe/v1/everything", headers={"If-Match": '"1"'})).status_code == 412
    assert await probe.query("SELECT title FROM notes") == ["first"]
    assert (await client.patch(path, json={"title": "x"}, headers={"If-Match": "*"})).status_code == 200
    stale = {"If-Match": created.headers["etag"]}
    assert (await client.delete(f"{path}?dry_run=true", headers=stale)).status_code == 412
    assert (await client.delete("/probe/v1/everything")).status_code == 204


async def test_an_answer_the_caller_has_is_not_sent_again(client: httpx.AsyncClient) -> None:
    path = f"{NOTES}/{(await create(client)).json()['id']}"
    first = await client.get(path)
    again = await client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    await client.patch(path, json={"title": "other"})
    assert (await client.get(path, headers={"If-None-Match": first.headers["etag"]})).status_code == 200


async def test_a_post_that_is_sent_again_is_answered_again_and_not_done_again(
    client: httpx.AsyncClient, probe: Probe
) -> None:
    first = await client.post(NOTES, json={"title": "once"}, headers=KEY)
    again = await client.post(
        NOTES, content=b'{ "title" : "once" }', headers=KEY | {"content-type": "application/json"}
    )
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert (again.headers["idempotency-replayed"], again.headers["etag"]) == ("true", first.headers["etag"])
    assert "idempotency-replayed" not in first.headers
    assert probe.told == ["once"]
    (sealed,) = await probe.query("SELECT sealed_answer FROM idempotency_keys")
    assert "once" not in sealed


async def test_the_same_key_for_another_request_is_refused(client: httpx.AsyncClient, probe: Probe) -> None:
    await client.post(NOTES, json={"title": "once"}, headers=KEY)
    other = await client.post(NOTES, json={"title": "twice"}, headers=KEY)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_used_otherwise")
    assert await probe.query("SELECT title FROM notes") == ["once"]


async def test_another_caller_or_path_has_keys_of_its_own(
    client: httpx.AsyncClient, probe: Probe, issuer: TokenIssuer
) -> None:
    assert (await client.post(NOTES, json={"title": "mine"}, headers=KEY)).status_code == 201
    theirs = await client.post(NOTES, json={"title": "theirs"}, headers=KEY | bearer(issuer.sign()))
    assert (theirs.status_code, theirs.json()["title"]) == (201, "theirs")
    assert (await client.post("/probe/v1/pairs", json={"title": "pair"}, headers=KEY)).status_code == 201


async def test_a_request_that_failed_is_done_when_it_is_sent_again(client: httpx.AsyncClient, probe: Probe) -> None:
    await create(client, "taken")
    assert (await client.post(NOTES, json={"title": "taken"}, headers=KEY)).status_code == 409
    await client.delete("/probe/v1/everything")
    again = await client.post(NOTES, json={"title": "taken"}, headers=KEY)
    assert (again.status_code, "idempotency-replayed" in again.headers) == (201, False)


async def test_while_the_first_is_on_its_way_the_second_is_told_to_wait(
    client: httpx.AsyncClient, probe: Probe
) -> None:
    probe.hold.clear()
    first = asyncio.create_task(client.post(NOTES, json={"title": "slow"}, headers=KEY))
    await probe.entered.wait()
    second = await client.post(NOTES, json={"title": "slow"}, headers=KEY)
    assert (second.status_code, second.json()["code"]) == (409, "idempotency_key_in_use")
    assert second.headers["retry-after"] == "1"
    probe.hold.set()
    assert (await first).status_code == 201
    assert (await client.post(NOTES, json={"title": "slow"}, headers=KEY)).headers["idempotency-replayed"] == "true"


async def test_a_process_that_dies_before_the_commit_leaves_a_request_that_can_be_sent_again(
    client: httpx.AsyncClient, probe: Probe
) -> None:
    probe.hold.clear()
    dying = asyncio.create_task(client.post(NOTES, json={"title": "once"}, headers=KEY))
    await probe.entered.wait()
    dying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dying
    probe.hold.set()
    again = await client.post(NOTES, json={"title": "once"}, headers=KEY)
    assert (again.status_code, "idempotency-replayed" in again.headers) == (201, False)
    assert await probe.query("SELECT title FROM notes") == ["once"]


async def test_kept_answers_are_forgotten_after_a_day(client: httpx.AsyncClient, probe: Probe) -> None:
    for n in range(3):
        await client.post(NOTES, json={"title": f"old {n}"}, headers={"Idempotency-Key": f"old-{n}"})
    async with probe.database.transaction() as connection:
        await connection.execute(text("UPDATE idempotency_keys SET expires_at = now() - interval '1 second'"))
    await client.delete("/probe/v1/everything")
    assert (await client.post(NOTES, json={"title": "old 0"}, headers={"Idempotency-Key": "old-0"})).status_code == 201
    assert await probe.query("SELECT count(*) FROM idempotency_keys") == [1]


@pytest.mark.parametrize("key", ["", "x" * 201, "two words", "caf\u00e9"])
async def test_a_key_that_is_none_is_refused(client: httpx.AsyncClient, key: str) -> None:
    answer = await client.post(NOTES, json={"title": "x"}, headers={"Idempotency-Key": key.encode("latin-1")})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "idempotency-key")

"""What every management API does around a request."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
import structlog
from fastapi import FastAPI, Request
from pydantic import Field

from ias.contracts.permissions import Permission
from ias.kit.authorization import Access, requires
from ias.kit.cursors import Limit
from ias.kit.database import Database
from ias.kit.problems import ConflictError, UnavailableError
from ias.kit.routing import Router
from ias.kit.settings import ServiceSettings
from ias.kit.tokens import MANAGEMENT_AUDIENCE, TokenVerifier
from ias.kit.web import Answer, Body, create_app
from tests.kit.token_issuer import TokenIssuer

BODY_BYTES_MAX = 1000
NOWHERE = "postgresql://ias:ias@127.0.0.1:1/nowhere"
SETTINGS = ServiceSettings(
    secret_key=base64.b64encode(bytes(32)).decode(),
    redis_url="redis://127.0.0.1:1/0",
    database_timeout_s=2,
    request_body_bytes_max=BODY_BYTES_MAX,
)


class Note(Body):
    text: str = Field(max_length=20)
    stars: int = Field(1, ge=0)


class NoteAnswer(Answer):
    text: str
    author: str | None


def build_app() -> FastAPI:
    router = Router(prefix="/probe/v1")

    @router.post("/notes", status_code=201)
    async def create_note(body: Note) -> NoteAnswer:
        return NoteAnswer(text=body.text, author=None)

    @router.get("/notes/{note_id}")
    async def get_note(note_id: int, limit: Limit = 5) -> NoteAnswer:
        return NoteAnswer(text=f"{note_id} {limit}", author=None)

    @router.get("/raising/{what}")
    async def raise_it(what: str, request: Request) -> NoteAnswer:
        match what:
            case "conflict":
                raise ConflictError("It is so already.", code="already_so", headers={"x-hint": "look"})
            case "unavailable":
                raise UnavailableError("Gone for a moment.")
            case "database":
                database = Database(NOWHERE, SETTINGS, application_name="test")
                await database.ping()
            case "refused":
                raise ConnectionRefusedError("10.0.0.7:5432 refused")
            case _:
                raise RuntimeError("the password is hunter2")
        return NoteAnswer(text="", author=None)

    @router.get("/secrets")
    async def list_secrets(access: Annotated[Access, requires(Permission.AUDIT_READ)]) -> NoteAnswer:
        return NoteAnswer(text="", author=access.actor.sub)

    @router.get("/request-id")
    async def show_request_id(request: Request) -> NoteAnswer:
        bound = structlog.contextvars.get_contextvars()["request_id"]
        assert bound == request.state.request_id
        return NoteAnswer(text=bound, author=None)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.checks = {"postgres": Database(NOWHERE, SETTINGS, application_name="test").ping}
        yield

    return create_app("probe", description="A probe.", routers=[router], lifespan=lifespan, settings=SETTINGS)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = build_app()
    app.state.verifier = TokenVerifier(TokenIssuer().fetch_jwks, audience=MANAGEMENT_AUDIENCE)
    transport = httpx.ASGITransport(app=app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        yield client


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert set(problem) == {"type", "title", "status", "detail", "instance", "code", "errors"}
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["type"] == f"urn:ias:problem:{code}"
    assert problem["instance"] == answer.request.url.path
    assert answer.headers["x-request-id"]
    return problem


async def test_an_unknown_path_is_a_404_problem(client: httpx.AsyncClient) -> None:
    assert_problem(await client.get("/probe/v1/nothing"), 404, "not_found")


async def test_a_slash_too_many_is_a_404_and_no_redirect(client: httpx.AsyncClient) -> None:
    assert_problem(await client.get("/probe/v1/request-id/"), 404, "not_found")


async def test_a_wrong_method_is_a_405_problem_that_names_the_right_ones(client: httpx.AsyncClient) -> None:
    answer = await client.delete("/probe/v1/notes")
    assert_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("body", [b"{", b"", b"{'text': 1}", b'{"text": NaN'])
async def test_json_that_does_not_parse_is_a_400_problem(client: httpx.AsyncClient, body: bytes) -> None:
    answer = await client.post("/probe/v1/notes", content=body, headers={"content-type": "application/json"})
    if body:
        assert_problem(answer, 400, "invalid_json")
    else:
        assert_problem(answer, 422, "invalid")


@pytest.mark.parametrize(
    "body",
    [
        b'{"text": "a", "text": "b"}',
        b'{"text": "a", "te\\u0078t": "a"}',
        b'[{"a": {"b": 1, "c": 2, "b": 1}}]',
    ],
)
async def test_a_name_that_an_object_has_twice_is_a_400_problem(client: httpx.AsyncClient, body: bytes) -> None:
    answer = await client.post("/probe/v1/notes", content=body, headers={"content-type": "application/json"})
    assert "more than once" in assert_problem(answer, 400, "duplicate_field")["detail"]


@pytest.mark.parametrize("constant", [b"NaN", b"Infinity", b"-Infinity"])
async def test_a_number_that_json_has_not_is_a_400_problem(client: httpx.AsyncClient, constant: bytes) -> None:
    body = b'{"text": "a", "stars": ' + constant + b"}"
    answer = await client.post("/probe/v1/notes", content=body, headers={"content-type": "application/json"})
    assert_problem(answer, 400, "invalid_json")


@pytest.mark.parametrize("body", [b'"\xff"', b"[" * 990])
async def test_a_body_that_no_parser_can_take_is_a_400_problem(client: httpx.AsyncClient, body: bytes) -> None:
    answer = await client.post("/probe/v1/notes", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["/text"]),
        ({"text": "x" * 21, "stars": -1}, ["/text", "/stars"]),
        ({"text": "x", "colour": "red"}, ["/colour"]),
        ({"text": None}, ["/text"]),
        ([], [""]),
        ("text", [""]),
    ],
)
async def test_wrong_fields_are_a_422_problem_that_names_each(
    client: httpx.AsyncClient, body: Any, pointers: list[str]
) -> None:
    problem = assert_problem(await client.post("/probe/v1/notes", json=body), 422, "invalid")
    assert [error["pointer"] for error in problem["errors"]] == pointers


async def test_wrong_parameters_are_named_too(client: httpx.AsyncClient) -> None:
    problem = assert_problem(await client.get("/probe/v1/notes/one?limit=0"), 422, "invalid")
    assert {error["pointer"] for error in problem["errors"]} == {"note_id", "limit"}


async def test_an_unknown_parameter_is_refused_rather_than_ignored(client: httpx.AsyncClient) -> None:
    problem = assert_problem(await client.get("/probe/v1/notes/1?limit=2&dry_run=true"), 422, "invalid")
    assert [error["pointer"] for error in problem["errors"]] == ["dry_run"]


async def test_a_body_that_is_not_declared_as_json_is_not_read_as_json(client: httpx.AsyncClient) -> None:
    answer = await client.post("/probe/v1/notes", content=b'{"text": "x"}', headers={"content-type": "text/plain"})
    assert_problem(answer, 422, "invalid")


async def test_a_refused_value_is_not_repeated_in_the_answer(client: httpx.AsyncClient) -> None:
    answer = await client.post("/probe/v1/notes", json={"text": {"password": "hunter2"}})
    assert "hunter2" not in answer.text


async def test_a_body_over_the_limit_is_a_413_problem(client: httpx.AsyncClient) -> None:
    answer = await client.post("/probe/v1/notes", json={"text": "x" * BODY_BYTES_MAX})
    assert_problem(answer, 413, "too_large")
    assert answer.headers["connection"] == "close"


async def test_a_chunked_body_over_the_limit_is_a_413_problem(client: httpx.AsyncClient) -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 100
            yield b" " * 100

    answer = await client.post("/probe/v1/notes", content=chunks(), headers={"content-type": "application/json"})
    assert_problem(answer, 413, "too_large")
    assert sent <= BODY_BYTES_MAX + 200, "the rest is not even read"


async def test_a_lying_content_length_does_not_widen_the_limit(client: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 100

    for length in ("5", "-1", "1e9"):
        headers = {"content-type": "application/json", "content-length": length}
        assert_problem(await client.post("/probe/v1/notes", content=chunks(), headers=headers), 413, "too_large")


async def test_a_body_at_the_limit_is_read(client: httpx.AsyncClient) -> None:
    body = json.dumps({"text": "x"}).encode().ljust(BODY_BYTES_MAX)
    answer = await client.post("/probe/v1/notes", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()) == (201, {"text": "x", "author": None})


async def test_a_problem_that_a_service_raises_keeps_its_code_and_headers(client: httpx.AsyncClient) -> None:
    answer = await client.get("/probe/v1/raising/conflict")
    assert assert_problem(answer, 409, "already_so")["detail"] == "It is so already."
    assert answer.headers["x-hint"] == "look"


@pytest.mark.parametrize("what", ["unavailable", "database", "refused"])
async def test_a_dependency_that_is_away_is_a_503_problem_with_retry_after(
    client: httpx.AsyncClient, what: str
) -> None:
    answer = await client.get(f"/probe/v1/raising/{what}")
    problem = assert_problem(answer, 503, "unavailable")
    assert answer.headers["retry-after"] == "1"
    assert "127.0.0.1" not in problem["detail"] + problem["title"]
    assert "10.0.0.7" not in answer.text


async def test_a_failure_that_was_not_foreseen_is_a_500_problem_that_gives_nothing_away(
    client: httpx.AsyncClient,
) -> None:
    answer = await client.get("/probe/v1/raising/anything")
    assert_problem(answer, 500, "internal")
    assert "hunter2" not in answer.text


async def test_a_well_formed_request_id_is_taken_over(client: httpx.AsyncClient) -> None:
    answer = await client.get("/probe/v1/request-id", headers={"x-request-id": "req_from-the-caller_1"})
    assert answer.json()["text"] == answer.headers["x-request-id"] == "req_from-the-caller_1"


@pytest.mark.parametrize("given", ["short", "x" * 81, "with space in it", "semi;colon;here", 'quote"quote"'])
async def test_any_other_request_id_is_replaced(client: httpx.AsyncClient, given: str) -> None:
    answer = await client.get("/probe/v1/request-id", headers={"x-request-id": given})
    made = answer.headers["x-request-id"]
    assert made.startswith("req_")
    assert made != given
    assert answer.json()["text"] == made


async def test_answers_are_neither_sniffed_nor_cached(client: httpx.AsyncClient) -> None:
    answer = await client.get("/probe/v1/notes/1")
    assert (answer.headers["x-content-type-options"], answer.headers["cache-control"]) == ("nosniff", "no-store")


async def test_health_is_about_the_process_and_readiness_about_what_it_needs(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health")).json()["status"] == "ok"
    ready = await client.get("/ready")
    assert (ready.status_code, ready.json()["status"], set(ready.json()["away"])) == (503, "unavailable", {"postgres"})
    assert "127.0.0.1" not in ready.text


async def test_metrics_count_by_route_and_not_by_path(client: httpx.AsyncClient) -> None:
    for number in range(3):
        await client.get(f"/probe/v1/notes/{number}")
    await client.get("/probe/v1/nothing/here")
    metrics = (await client.get("/metrics")).text
    counted = 'ias_probe_http_requests_total{method="GET",route="/probe/v1/notes/{note_id}",status="200"} 3.0'
    assert counted in metrics
    assert "nothing" not in metrics


async def test_the_openapi_document_tells_the_permission_of_each_operation(client: httpx.AsyncClient) -> None:
    document = (await client.get("/probe/v1/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    paths = document["paths"]
    assert paths["/probe/v1/secrets"]["get"]["security"] == [{"bearer": ["audit:read"]}, {"cookie": ["audit:read"]}]
    assert paths["/probe/v1/secrets"]["get"]["operationId"] == "list_secrets"
    assert "/health" not in paths


async def test_two_apps_in_one_process_share_nothing() -> None:
    one, two = build_app(), build_app()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=one), base_url="http://x") as client:
        await client.get("/probe/v1/notes/1")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=two), base_url="http://x") as client:
        assert "/probe/v1/notes" not in (await client.get("/metrics")).text

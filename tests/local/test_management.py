"""Several services in one process: each answers on its own paths, and all are asked whether they are ready."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse

from ias.local.management import ManagementApp, merge_metrics


def make_service(name: str, events: list[str], *, away: dict[str, str] | None = None, fails: bool = False) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, str]]:
        if fails:
            raise RuntimeError("no database")
        events.append(f"{name} opened")
        yield {"who": name}
        events.append(f"{name} closed")

    app = FastAPI(lifespan=lifespan)

    @app.get(f"/{name}/v1/thing")
    async def thing(request: Request) -> dict[str, str]:
        return {"who": request.state.who}

    @app.get("/ready")
    async def ready() -> JSONResponse:
        return JSONResponse({"away": away or {}}, status_code=503 if away else 200)

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(
            f"# HELP shared Shared.\n# TYPE shared counter\nshared{{service={json.dumps(name)}}} 1\n"
        )

    return app


@asynccontextmanager
async def running(app: ManagementApp) -> AsyncIterator[httpx.AsyncClient]:
    """The app between its startup and its shutdown, as a server runs it."""
    to_app: asyncio.Queue[Any] = asyncio.Queue()
    from_app: asyncio.Queue[Any] = asyncio.Queue()
    task = asyncio.create_task(app({"type": "lifespan"}, to_app.get, from_app.put))
    await to_app.put({"type": "lifespan.startup"})
    answer = await from_app.get()
    if answer["type"] != "lifespan.startup.complete":
        await task
        raise RuntimeError(answer["message"])
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://management") as client:
        yield client
    await to_app.put({"type": "lifespan.shutdown"})
    assert (await from_app.get())["type"] == "lifespan.shutdown.complete"
    await task


async def test_each_service_answers_on_its_own_paths_with_its_own_state():
    events: list[str] = []
    app = ManagementApp({name: make_service(name, events) for name in ("identity", "billing")}, version="1")
    async with running(app) as client:
        assert (await client.get("/identity/v1/thing")).json() == {"who": "identity"}
        assert (await client.get("/billing/v1/thing")).json() == {"who": "billing"}
    assert events == ["identity opened", "billing opened", "billing closed", "identity closed"]


async def test_a_path_that_is_nobodys_is_a_404_problem():
    async with running(ManagementApp({"identity": make_service("identity", [])}, version="1")) as client:
        for path in ("/nothing", "/identity", "/billing/v1/prices"):
            answer = await client.get(path)
            assert answer.status_code == 404
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["x-request-id"].startswith("req_")
            assert answer.json()["code"] == "not_found"
            assert answer.json()["type"] == "urn:ias:problem:not_found"
            assert answer.json()["instance"] == path


async def test_a_request_id_that_is_well_formed_is_given_back():
    async with running(ManagementApp({"identity": make_service("identity", [])}, version="1")) as client:
        for path in ("/", "/nothing", "/health", "/ready", "/metrics"):
            answer = await client.get(path, headers={"x-request-id": "req_0123456789"})
            assert answer.headers["x-request-id"] == "req_0123456789"
            answer = await client.get(path, headers={"x-request-id": "not well formed"})
            assert answer.headers["x-request-id"].startswith("req_")


async def test_the_bare_address_lists_the_services_and_where_each_is_described():
    apps = {name: make_service(name, []) for name in ("identity", "billing")}
    async with running(ManagementApp(apps, version="1")) as client:
        answer = await client.get("/")
        assert answer.status_code == 200
        assert answer.json()["services"] == {
            "identity": "/identity/v1/openapi.json",
            "billing": "/billing/v1/openapi.json",
        }
        assert (await client.post("/")).status_code == 404


async def test_readiness_names_the_service_and_what_it_waits_for():
    apps = {
        "identity": make_service("identity", []),
        "billing": make_service("billing", [], away={"redis": "ConnectionError"}),
    }
    async with running(ManagementApp(apps, version="1")) as client:
        answer = await client.get("/ready")
        assert answer.status_code == 503
        assert answer.json() == {"status": "unavailable", "away": {"billing redis": "ConnectionError"}}
        assert (await client.get("/health")).json() == {"status": "ok", "version": "1"}


async def test_metrics_of_all_services_are_one_exposition():
    apps = {name: make_service(name, []) for name in ("identity", "billing")}
    async with running(ManagementApp(apps, version="1")) as client:
        lines = (await client.get("/metrics")).text.splitlines()
    assert lines == [
        "# HELP shared Shared.",
        "# TYPE shared counter",
        'shared{service="identity"} 1',
        'shared{service="billing"} 1',
    ]


def test_merged_metrics_keep_every_sample_under_its_own_head():
    one = "# HELP a A.\n# TYPE a gauge\na 1\n# HELP b B.\n# TYPE b gauge\nb 2\n"
    other = '# HELP b B.\n# TYPE b gauge\nb{x="1"} 3\n'
    assert merge_metrics([one, other]).splitlines() == [
        "# HELP a A.", "# TYPE a gauge", "a 1",
        "# HELP b B.", "# TYPE b gauge", "b 2", 'b{x="1"} 3',
    ]  # fmt: skip


async def test_a_service_that_cannot_start_ends_the_others_and_is_named():
    events: list[str] = []
    apps = {"identity": make_service("identity", events), "billing": make_service("billing", events, fails=True)}
    with pytest.raises(RuntimeError, match="billing did not start"):
        async with running(ManagementApp(apps, version="1")):
            pass
    assert events == ["identity opened", "identity closed"]

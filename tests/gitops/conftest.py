"""Gitops before the real billing, both on a real PostgreSQL, and billing behind a door that can be made to fail."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, Literal
from uuid import uuid4

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from ias.billing import wiring as billing_wiring
from ias.billing.settings import BillingSettings
from ias.contracts.permissions import Role
from ias.gitops import wiring
from ias.gitops.settings import GitopsSettings
from tests.kit.token_issuer import TokenIssuer

SECRET_KEY = base64.b64encode(bytes(range(32))).decode()


class Door:
    """Stands before an app. Counts writes, and does to them what it is told."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self.writes = 0
        self.fail_from_write: int | None = None
        """Writes from this one on (counted from 1) are answered 500 and not passed on."""
        self.lose_answer_of_write: int | None = None
        """This write is passed on, but answered 500."""

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] == "GET":
            await self._app(scope, receive, send)
            return
        self.writes += 1
        if self.fail_from_write is not None and self.writes >= self.fail_from_write:
            await _answer_500(send)
        elif self.writes == self.lose_answer_of_write:
            await self._app(scope, receive, _nowhere)
            await _answer_500(send)
        else:
            await self._app(scope, receive, send)


async def _nowhere(message: Any) -> None:
    pass


async def _answer_500(send: Any) -> None:
    await send({"type": "http.response.start", "status": 500, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def serving(app: Any, *, lifespan: Literal["on", "off"] = "on") -> AsyncIterator[str]:
    """The app on a free loopback port; its base URL. `lifespan` is off for an app that was started already."""
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_config=None, lifespan=lifespan, timeout_graceful_shutdown=2)
    )
    running = asyncio.create_task(server.serve())
    while not server.started:
        assert not running.done(), "the server did not start"
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await running


class World:
    """An org, its people, and the two services."""

    def __init__(self, gitops: httpx.AsyncClient, billing: httpx.AsyncClient, door: Door, issuer: TokenIssuer) -> None:
        self.gitops = gitops
        self.billing = billing
        self.door = door
        self.issuer = issuer
        self.org_id = str(uuid4())
        self.owner = issuer.member(self.org_id, Role.OWNER)

    async def plan(self, *documents: dict[str, Any], prune: bool = False) -> dict[str, Any]:
        body = {"org_id": self.org_id, "documents": list(documents), "prune": prune}
        answer = await self.gitops.post("/gitops/v1/plans", json=body, headers=self.owner)
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def apply(self, plan: dict[str, Any]) -> httpx.Response:
        return await self.gitops.post(f"/gitops/v1/plans/{plan['id']}/apply", headers=self.owner)

    async def budgets(self) -> list[tuple[str, str, str, str]]:
        """What billing has: scope kind, window, limit and mode of each, sorted."""
        answer = await self.billing.get("/billing/v1/budgets", params={"org_id": self.org_id}, headers=self.owner)
        assert answer.status_code == 200, answer.text
        return sorted((b["scope"]["kind"], b["window"], b["limit_usd"], b["mode"]) for b in answer.json()["data"])

    async def create_budget(self, limit_usd: str, window: str = "month", mode: str = "hard") -> str:
        spec = self.document("any", limit_usd, window, mode)["spec"]
        answer = await self.billing.post(
            "/billing/v1/budgets", json={"org_id": self.org_id, **spec}, headers=self.owner
        )
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def document(self, name: str, limit_usd: str, window: str = "month", mode: str = "hard") -> dict[str, Any]:
        return {
            "apiVersion": "ias/v1",
            "kind": "Budget",
            "metadata": {"name": name},
            "spec": {
                "scope": {"kind": "org", "id": self.org_id},
                "window": window,
                "limit_usd": limit_usd,
                "mode": mode,
            },
        }


@pytest.fixture
def databases(make_migrated_database: Callable[[str], str]) -> dict[str, str]:
    return {service: make_migrated_database(service) for service in ("gitops", "billing")}


@pytest.fixture
async def world(databases: dict[str, str], redis_url: str) -> AsyncIterator[World]:
    issuer = TokenIssuer()
    base: dict[str, Any] = {
        "secret_key": SECRET_KEY,
        "redis_url": redis_url,
        "bus_url": redis_url,
        "database_pool_size": 4,
    }
    billing_settings = BillingSettings(billing_database_url=databases["billing"], **base)
    door = Door(billing_wiring.assemble(billing_settings, fetch_jwks=issuer.fetch_jwks))
    async with serving(door) as billing_url:
        app = wiring.assemble(
            GitopsSettings(
                gitops_database_url=databases["gitops"],
                billing_url=billing_url,
                gitops_billing_timeout_s=5.0,
                **base,
            ),
            fetch_jwks=issuer.fetch_jwks,
        )
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://gitops") as gitops,
            httpx.AsyncClient(base_url=billing_url) as billing,
        ):
            yield World(gitops, billing, door, issuer)

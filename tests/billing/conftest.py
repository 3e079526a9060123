"""Billing on real PostgreSQL and Redis."""

import asyncio
import base64
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from redis.asyncio import Redis

from ias.billing.settings import BillingSettings
from ias.billing.wiring import assemble
from ias.contracts import redis_keys
from ias.kit.database import Database
from tests.billing.usage import eventually
from tests.kit.token_issuer import TokenIssuer

SECRET_KEY = base64.b64encode(bytes(range(32))).decode()

RunningBilling = Callable[..., AbstractAsyncContextManager[FastAPI]]


@pytest.fixture
def issuer() -> TokenIssuer:
    return TokenIssuer()


@pytest.fixture
def org_id() -> str:
    return str(uuid4())


@pytest.fixture
def billing_database(make_migrated_database: Callable[[str], str]) -> str:
    return make_migrated_database("billing")


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def database(billing_database: str, redis_url: str) -> AsyncIterator[Database]:
    opened = Database(billing_database, settings_for(billing_database, redis_url), application_name="test")
    yield opened
    await opened.close()


@pytest.fixture
def run_billing(billing_database: str, redis_url: str, issuer: TokenIssuer) -> RunningBilling:
    """Starts billing with the given settings changed; gives its app."""

    @asynccontextmanager
    async def run(**changed: Any) -> AsyncIterator[FastAPI]:
        settings = settings_for(billing_database, **({"redis_url": redis_url} | changed))
        app = assemble(settings, fetch_jwks=issuer.fetch_jwks)
        async with app.router.lifespan_context(app):
            yield app

    return run


@pytest.fixture
async def billing(run_billing: RunningBilling, issuer: TokenIssuer, redis: Redis) -> AsyncIterator[httpx.AsyncClient]:
    """A platform admin's client of a running billing whose counters are complete.

    Before they are, it takes the Redis for one that lost its data: of a budget that is made then, gateways are taken to count all
    that comes later, which a test that books without a gateway does not mean.
    """
    async with run_billing() as app, client_of(app, issuer.platform_admin()) as client:
        await eventually(lambda: redis.exists(redis_keys.COUNTERS_READY))
        yield client


def settings_for(database_url: str, redis_url: str, **changed: Any) -> BillingSettings:
    told = {
        "billing_database_url": database_url,
        "redis_url": redis_url,
        "bus_url": redis_url,
        "secret_key": SECRET_KEY,
        "billing_heal_interval_s": 0.05,
        "billing_gateways_return_s": 0.0,
        "billing_reconcile_pause_s": 0.05,
        "redis_timeout_s": 1.0,
        "database_timeout_s": 5.0,
    } | changed
    return BillingSettings(**told)


def client_of(app: FastAPI, headers: dict[str, str] | None = None) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://billing", headers=headers)


async def create_price(billing: httpx.AsyncClient, model: str = "tiny", **more: Any) -> dict[str, Any]:
    body = {"model": model, "input_usd_per_million": "1", "output_usd_per_million": "2", **more}
    answer = await billing.post("/billing/v1/prices", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def create_budget(billing: httpx.AsyncClient, org_id: str, **more: Any) -> dict[str, Any]:
    body = {
        "org_id": org_id,
        "scope": {"kind": "org", "id": org_id},
        "window": "month",
        "limit_usd": "10",
        "mode": "hard",
        **more,
    }
    answer = await billing.post("/billing/v1/budgets", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[str]:
    """The app, which is running already, behind a real socket; gives its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None))
        running = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await running

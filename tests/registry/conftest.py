"""A registry on real PostgreSQL and Redis, and a caller who may do everything."""

import base64
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from ias.registry.settings import RegistrySettings
from ias.registry.wiring import assemble
from tests.kit.token_issuer import TokenIssuer

SECRET_KEY = base64.b64encode(bytes(range(32))).decode()

RunningRegistry = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def issuer() -> TokenIssuer:
    return TokenIssuer()


@pytest.fixture
def registry_database(make_migrated_database: Callable[[str], str]) -> str:
    return make_migrated_database("registry")


@pytest.fixture
def run_registry(registry_database: str, redis_url: str, issuer: TokenIssuer) -> RunningRegistry:
    """Starts a registry with the given settings changed; gives a platform admin's client."""

    @asynccontextmanager
    async def run(**changed: Any) -> AsyncIterator[httpx.AsyncClient]:
        settings = {
            "registry_database_url": registry_database,
            "redis_url": redis_url,
            "bus_url": redis_url,
            "secret_key": SECRET_KEY,
            "registry_allow_loopback": True,
            "registry_heal_interval_s": 0.1,
            "registry_prober": False,  # tests of the prober start one; the others name backends that are nowhere
            "registry_verify_timeout_s": 3.0,
            "redis_timeout_s": 0.5,
            "database_timeout_s": 5.0,
        } | changed
        app = assemble(RegistrySettings(**settings), fetch_jwks=issuer.fetch_jwks)
        async with app.router.lifespan_context(app), client_of(app, issuer.platform_admin()) as client:
            yield client

    return run


@pytest.fixture
async def registry(run_registry: RunningRegistry) -> AsyncIterator[httpx.AsyncClient]:
    async with run_registry() as client:
        yield client


def client_of(app: FastAPI, headers: dict[str, str]) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://registry", headers=headers)


async def create_model(registry: httpx.AsyncClient, name: str = "tiny", **more: Any) -> dict[str, Any]:
    answer = await registry.post("/registry/v1/models", json={"name": name, "context_length": 8192, **more})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def create_backend(registry: httpx.AsyncClient, model_id: str, **more: Any) -> dict[str, Any]:
    body = {"url": "http://127.0.0.1:9/v1", **more}
    answer = await registry.post(f"/registry/v1/models/{model_id}/backends", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()

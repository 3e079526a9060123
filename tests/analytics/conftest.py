"""Analytics on real PostgreSQL."""

import base64
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI

from ias.analytics.settings import AnalyticsSettings
from ias.analytics.wiring import assemble
from ias.kit.database import Database
from tests.kit.token_issuer import TokenIssuer

SECRET_KEY = base64.b64encode(bytes(range(32))).decode()


@pytest.fixture
def issuer() -> TokenIssuer:
    return TokenIssuer()


@pytest.fixture
def org_id() -> str:
    return str(uuid4())


@pytest.fixture
def analytics_database(make_migrated_database: Callable[[str], str]) -> str:
    return make_migrated_database("analytics")


@pytest.fixture
async def database(analytics_database: str) -> AsyncIterator[Database]:
    opened = Database(analytics_database, settings_for(analytics_database), application_name="test")
    yield opened
    await opened.close()


@pytest.fixture
async def app(analytics_database: str, issuer: TokenIssuer) -> AsyncIterator[FastAPI]:
    app = assemble(settings_for(analytics_database), fetch_jwks=issuer.fetch_jwks)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def analytics(app: FastAPI, issuer: TokenIssuer) -> AsyncIterator[httpx.AsyncClient]:
    """A platform admin's client."""
    async with client_of(app, issuer.platform_admin()) as client:
        yield client


def settings_for(database_url: str) -> AnalyticsSettings:
    told: dict[str, Any] = {
        "analytics_database_url": database_url,
        "redis_url": "redis://127.0.0.1:1/0",
        "bus_url": "redis://127.0.0.1:1/0",
        "secret_key": SECRET_KEY,
        "database_timeout_s": 5.0,
    }
    return AnalyticsSettings(**told)


def client_of(app: FastAPI, headers: dict[str, str] | None = None) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://analytics", headers=headers)

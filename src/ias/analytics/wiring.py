"""The only place that builds analytics' parts: the app with its timer, and the consumer."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from ias.analytics.api import reconciliation, requests, usage
from ias.analytics.core.counting import Counting
from ias.analytics.core.usage import Usage
from ias.analytics.settings import AnalyticsSettings
from ias.analytics.workers.partitions import Partitions
from ias.analytics.workers.usage_consumer import UsageConsumer
from ias.kit.audit_trail import audit_trail
from ias.kit.cursors import Cursors
from ias.kit.database import Database
from ias.kit.redis_documents import open_redis
from ias.kit.revocations import Revocations
from ias.kit.sealing import decode_secret_key
from ias.kit.telemetry import close_tracing, open_tracing
from ias.kit.tokens import MANAGEMENT_AUDIENCE, FetchJwks, TokenVerifier, jwks_over_http
from ias.kit.web import create_app

_IDENTITY_TIMEOUT_S = 5.0
_TIMER_STOP_TIMEOUT_S = 15.0


def build_app() -> FastAPI:
    """The app, with settings from the environment. Nothing is opened before its lifespan begins."""
    return assemble(AnalyticsSettings())


def build_consumer() -> UsageConsumer:
    """The consumer that counts usage records, with settings from the environment."""
    return assemble_consumer(AnalyticsSettings())


def assemble(settings: AnalyticsSettings, *, fetch_jwks: FetchJwks | None = None) -> FastAPI:
    """The app with the given settings. `fetch_jwks` None asks identity for the keys that verify tokens."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _open_parts(app, settings, fetch_jwks):
            yield

    return create_app(
        "analytics",
        description="Usage over time. Amounts are decimal strings of USD.",
        routers=[usage.router, requests.router, reconciliation.router],
        lifespan=lifespan,
        settings=settings,
    )


def assemble_consumer(settings: AnalyticsSettings) -> UsageConsumer:
    """The consumer with the given settings."""
    url = settings.analytics_database_url.get_secret_value()
    database = Database(url, settings, application_name="ias-analytics-consumer")

    @contextlib.asynccontextmanager
    async def open_counting() -> AsyncIterator[Counting]:
        try:
            yield Counting(database)
        finally:
            await database.close()

    return UsageConsumer(
        settings.bus_url.get_secret_value(),
        open_counting,
        checks={"postgres": database.ping},
        registry=CollectorRegistry(),
    )


@contextlib.asynccontextmanager
async def _open_parts(app: FastAPI, settings: AnalyticsSettings, fetch_jwks: FetchJwks | None) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        app.state.tracing = open_tracing("analytics", settings)
        stack.callback(close_tracing, app.state.tracing)
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=_IDENTITY_TIMEOUT_S))
        redis = open_redis(settings.redis_url.get_secret_value(), settings.redis_timeout_s)
        stack.push_async_callback(redis.aclose)
        url = settings.analytics_database_url.get_secret_value()
        database = Database(url, settings, application_name="ias-analytics")
        stack.push_async_callback(database.close)

        app.state.usage = Usage(database)
        app.state.cursors = Cursors(decode_secret_key(settings.secret_key.get_secret_value()))
        app.state.verifier = TokenVerifier(
            fetch_jwks or jwks_over_http(http, settings.identity_url),
            audience=MANAGEMENT_AUDIENCE,
            revocations=Revocations(redis),
        )
        app.state.service_verifier = TokenVerifier(
            fetch_jwks or jwks_over_http(http, settings.identity_url), audience="analytics"
        )
        app.state.checks = {"postgres": database.ping}

        bus_url = settings.bus_url.get_secret_value()
        await stack.enter_async_context(audit_trail(app, "analytics", database, settings, bus_url))
        stop = asyncio.Event()
        timer = asyncio.create_task(Partitions(database, app.state.registry).run(stop), name="analytics partitions")
        try:
            yield
        finally:
            stop.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(timer, _TIMER_STOP_TIMEOUT_S)

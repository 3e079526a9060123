"""Builds gitops: the only place where its parts are put together."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
from fastapi import FastAPI

from ias.gitops.api import plans
from ias.gitops.core.billing_budgets import BillingBudgets
from ias.gitops.core.documents import Documents
from ias.gitops.core.plans import Plans
from ias.gitops.settings import GitopsSettings
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


def build_app() -> FastAPI:
    """The app of gitops, with settings from the environment. Nothing is opened before its lifespan begins."""
    return assemble(GitopsSettings())


def assemble(settings: GitopsSettings, *, fetch_jwks: FetchJwks | None = None) -> FastAPI:
    """The app of gitops with the given settings. `fetch_jwks` None asks identity for the keys that verify tokens."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as opened:
            await _open(app, settings, fetch_jwks, opened)
            yield

    return create_app(
        "gitops",
        description="What an org declares, the plan from what there is to it, and its application.",
        routers=[plans.router],
        lifespan=lifespan,
        settings=settings,
    )


async def _open(app: FastAPI, settings: GitopsSettings, fetch_jwks: FetchJwks | None, opened: AsyncExitStack) -> None:
    """Put the parts of gitops into `app.state`; `opened` closes them."""
    database = Database(settings.gitops_database_url.get_secret_value(), settings, application_name="ias-gitops")
    opened.push_async_callback(database.close)
    redis = open_redis(settings.redis_url.get_secret_value(), settings.redis_timeout_s)
    opened.push_async_callback(redis.aclose)
    to_identity = await opened.enter_async_context(httpx.AsyncClient(timeout=_IDENTITY_TIMEOUT_S))
    to_billing = await opened.enter_async_context(httpx.AsyncClient(timeout=settings.gitops_billing_timeout_s))
    app.state.tracing = open_tracing("gitops", settings)
    opened.callback(close_tracing, app.state.tracing)

    app.state.verifier = TokenVerifier(
        fetch_jwks or jwks_over_http(to_identity, settings.identity_url),
        audience=MANAGEMENT_AUDIENCE,
        revocations=Revocations(redis),
    )
    app.state.cursors = Cursors(decode_secret_key(settings.secret_key.get_secret_value()))
    app.state.plans = Plans(
        database,
        BillingBudgets(to_billing, settings.billing_url),
        Documents(),
        apply_timeout_s=settings.gitops_apply_timeout_s,
    )
    bus_url = settings.bus_url.get_secret_value()
    await opened.enter_async_context(audit_trail(app, "gitops", database, settings, bus_url))
    app.state.checks = {"postgres": database.ping}

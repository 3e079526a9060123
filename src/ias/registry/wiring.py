"""Builds the registry: the only place where its parts are put together."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
from fastapi import FastAPI

from ias.contracts.routes import CREDENTIAL_PURPOSE
from ias.kit.audit_trail import audit_trail
from ias.kit.cursors import Cursors
from ias.kit.database import Database
from ias.kit.egress import EgressPolicy, Resolve, remembering, system_resolver
from ias.kit.guarded_http import GuardedTransport
from ias.kit.redis_documents import open_redis
from ias.kit.revocations import Revocations
from ias.kit.sealing import Sealer, decode_secret_key
from ias.kit.telemetry import close_tracing, open_tracing
from ias.kit.tokens import MANAGEMENT_AUDIENCE, FetchJwks, TokenVerifier, jwks_over_http
from ias.kit.web import create_app
from ias.registry.api import (
    adapters,
    backend_health,
    backends,
    changes,
    engine_tokens,
    models,
    route_policies,
    route_table,
)
from ias.registry.core.adapters import Adapters
from ias.registry.core.backend_health import BackendHealths
from ias.registry.core.backends import Backends
from ias.registry.core.changes import Changes
from ias.registry.core.circuits import CircuitRules
from ias.registry.core.credentials import Credentials
from ias.registry.core.engine_tokens import EngineTokenSums
from ias.registry.core.health_watch import HealthWatch, WatchMetrics, WatchRules
from ias.registry.core.models import Models
from ias.registry.core.prober_lease import ProberLease
from ias.registry.core.probes import Probes
from ias.registry.core.route_policies import RoutePolicies
from ias.registry.core.route_table import RouteTables
from ias.registry.core.verification import Verifications
from ias.registry.core.watched_backends import HealthRules
from ias.registry.settings import RegistrySettings
from ias.registry.workers.health_prober import probing
from ias.registry.workers.route_healing import healing_routes

_IDENTITY_TIMEOUT_S = 5.0
_NAMES_REMEMBERED_S = 5.0
"""By the prober alone, which would otherwise look each name up several times a second."""


def build_app() -> FastAPI:
    """The registry's app, with settings from the environment. Nothing is opened before its lifespan begins."""
    return assemble(RegistrySettings())


def assemble(settings: RegistrySettings, *, fetch_jwks: FetchJwks | None = None) -> FastAPI:
    """The registry's app with the given settings. `fetch_jwks` None asks identity for the keys that verify tokens."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as opened:
            await _open(app, settings, fetch_jwks, opened)
            yield

    return create_app(
        "registry",
        description="Models, the backends that serve them, and the routes that gateways follow.",
        routers=[
            models.router,
            route_policies.router,
            backends.router,
            adapters.router,
            backend_health.router,
            engine_tokens.router,
            changes.router,
            route_table.router,
        ],
        lifespan=lifespan,
        settings=settings,
    )


async def _open(app: FastAPI, settings: RegistrySettings, fetch_jwks: FetchJwks | None, opened: AsyncExitStack) -> None:
    """Put the registry's parts into `app.state` and start its workers; `opened` closes them."""
    database = Database(settings.registry_database_url.get_secret_value(), settings, application_name="ias-registry")
    opened.push_async_callback(database.close)
    redis = open_redis(settings.redis_url.get_secret_value(), settings.redis_timeout_s)
    opened.push_async_callback(redis.aclose)
    to_identity = await opened.enter_async_context(httpx.AsyncClient(timeout=_IDENTITY_TIMEOUT_S))
    app.state.tracing = open_tracing("registry", settings)
    opened.callback(close_tracing, app.state.tracing)

    secret_key = decode_secret_key(settings.secret_key.get_secret_value())
    sealer = Sealer(secret_key, CREDENTIAL_PURPOSE)
    resolve = system_resolver(settings.registry_resolve_timeout_s)
    egress = _egress_policy(settings, resolve)
    to_backends = await opened.enter_async_context(
        httpx.AsyncClient(transport=GuardedTransport(egress), timeout=settings.registry_verify_timeout_s)
    )
    credentials = Credentials(sealer, os.environ, settings.registry_credentials_dir)
    tables = RouteTables(database, redis, egress, credentials)
    made_changes = Changes(database, tables.push_or_leave_to_heal)

    app.state.verifier = TokenVerifier(
        fetch_jwks or jwks_over_http(to_identity, settings.identity_url),
        audience=MANAGEMENT_AUDIENCE,
        revocations=Revocations(redis),
    )
    app.state.service_verifier = TokenVerifier(
        fetch_jwks or jwks_over_http(to_identity, settings.identity_url), audience="registry"
    )
    app.state.cursors = Cursors(secret_key)
    app.state.changes = made_changes
    app.state.models = Models(database, made_changes)
    app.state.route_policies = RoutePolicies(database, made_changes)
    app.state.backends = Backends(database, made_changes, egress, credentials)
    app.state.adapters = Adapters(database, made_changes)
    app.state.verifications = Verifications(
        app.state.backends, credentials, to_backends, settings.registry_verify_timeout_s
    )
    app.state.route_tables = tables
    app.state.backend_healths = BackendHealths(database, redis)
    app.state.engine_token_sums = EngineTokenSums(database)
    bus_url = settings.bus_url.get_secret_value()
    await opened.enter_async_context(audit_trail(app, "registry", database, settings, bus_url))

    async def ping_redis() -> None:
        await redis.ping()

    app.state.checks = {"postgres": database.ping, "redis": ping_redis}
    await opened.enter_async_context(healing_routes(tables, settings.registry_heal_interval_s))
    to_probe = _egress_policy(settings, remembering(resolve, _NAMES_REMEMBERED_S))
    probes = Probes(to_probe, sealer, timeout_s=settings.registry_probe_timeout_s)
    lease = ProberLease(redis, settings.registry_prober_lease_s)
    watch = HealthWatch(redis, lease, probes, _watch_rules(settings), WatchMetrics(app.state.registry))
    if settings.registry_prober:
        await opened.enter_async_context(probing(watch, lease, database))


def _egress_policy(settings: RegistrySettings, resolve: Resolve) -> EgressPolicy:
    return EgressPolicy(
        allow_loopback=settings.registry_allow_loopback,
        allow_private_networks=settings.registry_allow_private_networks,
        resolve=resolve,
    )


def _watch_rules(settings: RegistrySettings) -> WatchRules:
    return WatchRules(
        probe_interval_s=settings.registry_probe_interval_s,
        scrape_interval_s=settings.registry_scrape_interval_s,
        at_once_max=settings.registry_probes_at_once_max,
        health=HealthRules(ramp_s=settings.registry_ramp_s),
        circuit=CircuitRules(
            failures_min=settings.registry_circuit_failures_min, open_s=settings.registry_circuit_open_s
        ),
    )

"""The only place that builds billing's parts: the app with its timers, and the consumer."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from ias.billing.api import adjustments as adjustments_api
from ias.billing.api import alerts as alerts_api
from ias.billing.api import balances as balances_api
from ias.billing.api import budget_raises as budget_raises_api
from ias.billing.api import budgets as budgets_api
from ias.billing.api import ledger as ledger_api
from ias.billing.api import prices as prices_api
from ias.billing.api import rate_limits as rate_limits_api
from ias.billing.api import reconciliations as reconciliations_api
from ias.billing.api import remaining as remaining_api
from ias.billing.api import reratings as reratings_api
from ias.billing.api import spending_settings as spending_settings_api
from ias.billing.api import statements as statements_api
from ias.billing.core.adjustments import Adjustments
from ias.billing.core.alert_channels import AlertChannels
from ias.billing.core.alert_deliveries import AlertDeliveries
from ias.billing.core.alerts import Alerts
from ias.billing.core.analytics_client import AnalyticsClient
from ias.billing.core.booking import Booking
from ias.billing.core.budget_raises import BudgetRaises
from ias.billing.core.budgets import Budgets
from ias.billing.core.counters import Counters
from ias.billing.core.engine_check import EngineCheck
from ias.billing.core.expired_reservations import ExpiredReservations
from ias.billing.core.ledger import Ledger
from ias.billing.core.prices import Prices
from ias.billing.core.publishing import Publishing
from ias.billing.core.rate_limits import RateLimits
from ias.billing.core.readiness import Readiness
from ias.billing.core.reconciliation import Reconciler
from ias.billing.core.registry_client import RegistryClient
from ias.billing.core.reratings import Reratings
from ias.billing.core.spending_settings import SpendingSettingsRules
from ias.billing.core.statements import Statements
from ias.billing.settings import BillingSettings
from ias.billing.store.counters import CounterStore
from ias.billing.store.reservations import ReservationStore
from ias.billing.store.unserved import UnservedStore
from ias.billing.workers.alert_deliveries import keep_delivering
from ias.billing.workers.timers import Timers
from ias.billing.workers.usage_consumer import GROUP, UsageConsumer
from ias.contracts.events import USAGE_TOPIC
from ias.kit.audit_trail import audit_trail
from ias.kit.bus import count_waiting
from ias.kit.cursors import Cursors
from ias.kit.database import Database
from ias.kit.egress import EgressPolicy, system_resolver
from ias.kit.guarded_http import GuardedTransport
from ias.kit.mail import build_mailer
from ias.kit.redis_documents import RedisDocuments, open_redis
from ias.kit.revocations import Revocations
from ias.kit.sealing import Sealer, decode_secret_key
from ias.kit.telemetry import close_tracing, open_tracing
from ias.kit.tokens import MANAGEMENT_AUDIENCE, FetchJwks, ServiceTokens, TokenVerifier, jwks_over_http
from ias.kit.web import create_app

_IDENTITY_TIMEOUT_S = 5.0
_TIMERS_STOP_TIMEOUT_S = 15.0
_RESOLVE_TIMEOUT_S = 3.0
_ANSWER_BYTES_MAX = 65_536
"""Of a webhook. Nobody reads it."""
_CLOCKS_DIFFER = timedelta(seconds=2)


def build_app() -> FastAPI:
    """The app, with settings from the environment. Nothing is opened before its lifespan begins."""
    return assemble(BillingSettings())


def build_consumer() -> UsageConsumer:
    """The consumer that books usage records, with settings from the environment."""
    return assemble_consumer(BillingSettings())


def assemble(settings: BillingSettings, *, fetch_jwks: FetchJwks | None = None) -> FastAPI:
    """The app with the given settings. `fetch_jwks` None asks identity for the keys that verify tokens."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _open_parts(app, settings, fetch_jwks):
            yield

    return create_app(
        "billing",
        description="Prices, budgets, rate limits and the ledger. Amounts are decimal strings of USD.",
        routers=[
            prices_api.router,
            budgets_api.router,
            budget_raises_api.router,
            remaining_api.router,
            rate_limits_api.router,
            ledger_api.router,
            balances_api.router,
            adjustments_api.router,
            reratings_api.router,
            spending_settings_api.router,
            reconciliations_api.router,
            statements_api.router,
            alerts_api.router,
        ],
        lifespan=lifespan,
        settings=settings,
    )


def _add_nouns(
    app: FastAPI, database: Database, counters: Counters, publishing: Publishing, unserved: UnservedStore
) -> None:
    """What the routes ask, into the app."""
    app.state.prices = Prices(database, publishing)
    app.state.budgets = Budgets(database, publishing, counters)
    app.state.budget_raises = BudgetRaises(database, publishing)
    app.state.adjustments = Adjustments(database, counters)
    app.state.rate_limits = RateLimits(database, publishing)
    app.state.alerts = Alerts(database, counters)
    app.state.reratings = Reratings(database, app.state.adjustments)
    app.state.spending_settings = SpendingSettingsRules(database, publishing)
    app.state.statements = Statements(database)
    app.state.ledger = Ledger(database, unserved)


def _open_alerts(
    app: FastAPI, stack: contextlib.AsyncExitStack, settings: BillingSettings, database: Database
) -> AlertDeliveries:
    """What tells alerts; where they are told goes into the app."""
    sealer = Sealer(decode_secret_key(settings.secret_key.get_secret_value()), "alert channels")
    egress = EgressPolicy(
        allow_loopback=settings.billing_webhook_allow_loopback,
        allow_private_networks=settings.billing_webhook_allow_private_networks,
        resolve=system_resolver(_RESOLVE_TIMEOUT_S),
    )
    app.state.alert_channels = AlertChannels(database, egress, sealer)
    transport = GuardedTransport(egress, answer_bytes_max=_ANSWER_BYTES_MAX)
    stack.push_async_callback(transport.aclose)
    return AlertDeliveries(
        database,
        transport,
        build_mailer(settings),
        sealer,
        webhook_timeout_s=settings.billing_webhook_timeout_s,
    )


def assemble_consumer(settings: BillingSettings) -> UsageConsumer:
    """The consumer with the given settings."""
    url = settings.billing_database_url.get_secret_value()
    database = Database(url, settings, application_name="ias-billing-consumer")

    @contextlib.asynccontextmanager
    async def open_booking() -> AsyncIterator[Booking]:
        try:
            yield Booking(database)
        finally:
            await database.close()

    return UsageConsumer(
        settings.bus_url.get_secret_value(),
        open_booking,
        checks={"postgres": database.ping},
        registry=CollectorRegistry(),
    )


@contextlib.asynccontextmanager
async def _open_parts(app: FastAPI, settings: BillingSettings, fetch_jwks: FetchJwks | None) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        app.state.tracing = open_tracing("billing", settings)
        stack.callback(close_tracing, app.state.tracing)
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=_IDENTITY_TIMEOUT_S))
        redis = open_redis(settings.redis_url.get_secret_value(), settings.redis_timeout_s)
        stack.push_async_callback(redis.aclose)
        database = Database(settings.billing_database_url.get_secret_value(), settings, application_name="ias-billing")
        stack.push_async_callback(database.close)

        counter_store = CounterStore(redis)
        counters = Counters(database, counter_store)
        publishing = Publishing(database, RedisDocuments(redis), counters)
        _add_nouns(app, database, counters, publishing, UnservedStore(redis))
        deliveries = app.state.alert_deliveries = _open_alerts(app, stack, settings, database)
        app.state.cursors = Cursors(decode_secret_key(settings.secret_key.get_secret_value()))
        app.state.verifier = TokenVerifier(
            fetch_jwks or jwks_over_http(http, settings.identity_url),
            audience=MANAGEMENT_AUDIENCE,
            revocations=Revocations(redis),
        )

        async def ping_redis() -> None:
            await redis.ping()

        app.state.checks = {"postgres": database.ping, "redis": ping_redis}
        reconciler = app.state.reconciler = Reconciler(
            database,
            counters,
            *_open_other_books(settings, http, database),
            pause_s=settings.billing_reconcile_pause_s,
            uncertainty=_CLOCKS_DIFFER,
        )
        bus_url = settings.bus_url.get_secret_value()
        timers = Timers(
            database,
            Readiness(
                database,
                counter_store,
                publishing,
                count_waiting=lambda: count_waiting(bus_url, USAGE_TOPIC, GROUP),
                gateways_return_s=settings.billing_gateways_return_s,
            ),
            publishing,
            counters,
            ExpiredReservations(database, ReservationStore(redis)),
            alerts=app.state.alerts,
            reconciler=reconciler,
            heal_interval_s=settings.billing_heal_interval_s,
            reconcile_interval_s=settings.billing_reconcile_interval_s,
            registry=app.state.registry,
        )
        await stack.enter_async_context(audit_trail(app, "billing", database, settings, bus_url))
        stop = asyncio.Event()
        running = asyncio.gather(
            timers.run(stop), keep_delivering(deliveries, stop, interval_s=settings.billing_alert_interval_s)
        )
        try:
            yield
        finally:
            stop.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(running, _TIMERS_STOP_TIMEOUT_S)


def _open_other_books(
    settings: BillingSettings, http: httpx.AsyncClient, database: Database
) -> tuple[AnalyticsClient | None, EngineCheck | None]:
    """Those of other services, which answer only to services with a secret."""
    if settings.service_secret is None:
        return None, None
    secret = settings.service_secret.get_secret_value()
    tokens = ServiceTokens(http, settings.identity_url, client_id="billing", client_secret=secret)
    engines = EngineCheck(
        database,
        RegistryClient(http, tokens, settings.registry_url),
        tolerance=settings.billing_engine_tolerance,
        uncertainty=_CLOCKS_DIFFER,
    )
    return AnalyticsClient(http, tokens, settings.analytics_url), engines

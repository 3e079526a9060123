"""Builds the service: the only place that knows how its parts fit together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from ias.identity.api import (
    api_keys,
    audit_log,
    authz,
    identity_providers,
    invitations,
    leaked_keys,
    members,
    orgs,
    password_resets,
    project_members,
    projects,
    roles,
    second_factors,
    service_accounts,
    service_tokens,
    sessions,
    signing_keys,
    users,
)
from ias.identity.api.parts import Parts
from ias.identity.core.access_tokens import AccessTokens
from ias.identity.core.api_keys import ApiKeys
from ias.identity.core.audit_checkpoints import AuditCheckpoints
from ias.identity.core.audit_exports import AuditExports
from ias.identity.core.audit_log import AuditLog
from ias.identity.core.explanations import Explanations
from ias.identity.core.identity_providers import IdentityProviders
from ias.identity.core.invitations import Invitations
from ias.identity.core.last_used import LastUsed
from ias.identity.core.leak_reports import LeakReports
from ias.identity.core.link_tokens import LinkTokens
from ias.identity.core.mails import Mails
from ias.identity.core.members import Members
from ias.identity.core.oidc import OidcClient
from ias.identity.core.oidc_sign_ins import OidcSignIns
from ias.identity.core.orgs import Orgs
from ias.identity.core.password_changes import PasswordChanges
from ias.identity.core.passwords import Passwords
from ias.identity.core.project_members import ProjectMembers
from ias.identity.core.projects import Projects
from ias.identity.core.purges import Purges
from ias.identity.core.redis_records import RedisRecords
from ias.identity.core.roles import Roles
from ias.identity.core.second_factors import SecondFactors
from ias.identity.core.service_accounts import ServiceAccounts
from ias.identity.core.service_tokens import ServiceTokens
from ias.identity.core.session_revocations import SessionRevocations
from ias.identity.core.sessions import Sessions
from ias.identity.core.sign_in_attempts import SignInAttempts
from ias.identity.core.sign_ins import SignIns
from ias.identity.core.signing_keys import SigningKeys
from ias.identity.core.users import Users
from ias.identity.settings import IdentityConsumerSettings, IdentitySettings
from ias.identity.workers.audit_checkpoints import keep_signed
from ias.identity.workers.audit_consumer import AuditConsumer
from ias.identity.workers.consumer import IdentityConsumer, TopicConsumer
from ias.identity.workers.mails import keep_sent
from ias.identity.workers.purges import keep_purged
from ias.identity.workers.redis_records import keep_pushed
from ias.identity.workers.session_revocations import keep_told
from ias.identity.workers.signing_keys import keep_rotated
from ias.identity.workers.usage_consumer import UsageConsumer
from ias.kit.cursors import Cursors
from ias.kit.database import Database
from ias.kit.denials import Denials
from ias.kit.egress import EgressPolicy, system_resolver
from ias.kit.guarded_http import GuardedTransport
from ias.kit.mail import build_mailer
from ias.kit.redis_documents import open_redis
from ias.kit.revocations import Revocations
from ias.kit.sealing import Sealer, decode_secret_key
from ias.kit.telemetry import close_tracing, open_tracing
from ias.kit.tokens import MANAGEMENT_AUDIENCE, TokenVerifier
from ias.kit.web import create_app

ROUTERS = [
    sessions.router,
    identity_providers.router,
    identity_providers.sign_in_router,
    users.router,
    password_resets.router,
    second_factors.router,
    signing_keys.router,
    orgs.router,
    projects.router,
    service_accounts.router,
    api_keys.router,
    leaked_keys.router,
    members.router,
    project_members.router,
    roles.router,
    authz.router,
    invitations.router,
    audit_log.router,
    service_tokens.router,
    api_keys.internal_router,
]


_TOLD_INTERVAL_S = 2.0
"""How soon after Redis is back, or was emptied, it knows again which tokens are refused."""

_STOP_TIMEOUT_S = 15.0
"""Longer than one operation on PostgreSQL or Redis may take."""


def build_app(settings: IdentitySettings | None = None) -> FastAPI:
    """The app, with settings from the environment unless given. Its lifespan opens and closes everything."""
    settings = settings or IdentitySettings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await _open(app, settings, stack)
            yield

    return create_app(
        "identity",
        description="Orgs, projects, users, members, API keys, sessions and the audit log of the platform.",
        routers=ROUTERS,
        lifespan=lifespan,
        settings=settings,
    )


def build_consumer(settings: IdentityConsumerSettings | None = None) -> IdentityConsumer:
    """The consumer of audit and usage records, with settings from the environment unless given."""
    settings = settings or IdentityConsumerSettings()
    url, bus_url = settings.identity_database_url.get_secret_value(), settings.bus_url.get_secret_value()
    database = Database(url, settings, application_name="ias-identity-consumer")
    registry = CollectorRegistry()
    topics: list[TopicConsumer] = [
        AuditConsumer(bus_url, AuditLog(database), registry),
        UsageConsumer(bus_url, LastUsed(database), registry),
    ]
    return IdentityConsumer(topics, database, registry)


async def _open(app: FastAPI, settings: IdentitySettings, stack: AsyncExitStack) -> None:
    app.state.tracing = open_tracing("identity", settings)
    stack.callback(close_tracing, app.state.tracing)
    database = Database(settings.identity_database_url.get_secret_value(), settings, application_name="ias-identity")
    stack.push_async_callback(database.close)
    redis = open_redis(settings.redis_url.get_secret_value(), settings.redis_timeout_s)
    stack.push_async_callback(redis.aclose)
    passwords = Passwords(
        rounds=settings.identity_bcrypt_rounds,
        threads=settings.identity_bcrypt_threads,
        waiting_max=settings.identity_bcrypt_waiting_max,
    )
    stack.callback(passwords.close)
    revocations = Revocations(redis)
    to_providers = GuardedTransport(
        EgressPolicy(
            allow_loopback=settings.identity_oidc_allow_loopback,
            allow_private_networks=settings.identity_oidc_allow_private_networks,
            resolve=system_resolver(settings.identity_oidc_timeout_s),
        )
    )
    stack.push_async_callback(to_providers.aclose)
    oidc = OidcClient(
        to_providers,
        redirect_uri=f"{settings.identity_public_url}/sign-in/callback",
        timeout_s=settings.identity_oidc_timeout_s,
    )
    parts = build_parts(settings, database, redis=redis, passwords=passwords, revocations=revocations, oidc=oidc)
    app.state.parts = parts
    app.state.denials = Denials(
        "identity", parts.audit_log.write, app.state.registry, per_caller_max=settings.audit_denials_per_caller_max
    )
    app.state.verifier = TokenVerifier(
        parts.signing_keys.get_jwks, audience=MANAGEMENT_AUDIENCE, revocations=revocations
    )
    app.state.service_verifier = TokenVerifier(parts.signing_keys.get_jwks, audience="identity")

    async def ping_redis() -> None:
        await redis.ping()

    app.state.checks = {"postgres": database.ping, "redis": ping_redis}
    await parts.signing_keys.ensure()
    if settings.identity_admin_email and settings.identity_admin_password:
        await parts.users.ensure_platform_admin(
            settings.identity_admin_email, settings.identity_admin_password.get_secret_value()
        )
    stop = asyncio.Event()
    workers = [
        asyncio.create_task(keep_pushed(parts.redis_records, stop, interval_s=settings.identity_push_interval_s)),
        asyncio.create_task(keep_sent(parts.mails, stop, interval_s=settings.identity_mail_interval_s)),
        asyncio.create_task(keep_told(parts.session_revocations, stop, interval_s=_TOLD_INTERVAL_S)),
        asyncio.create_task(keep_purged(parts.purges, stop, interval_s=settings.identity_purge_interval_s)),
        asyncio.create_task(keep_rotated(parts.signing_keys, stop)),
        asyncio.create_task(
            keep_signed(parts.audit_checkpoints, stop, interval_s=settings.identity_audit_checkpoint_s)
        ),
        asyncio.create_task(app.state.denials.run(stop)),
    ]
    stack.push_async_callback(_end, workers, stop)


def build_parts(
    settings: IdentitySettings,
    database: Database,
    *,
    redis: Redis,
    passwords: Passwords,
    revocations: Revocations,
    oidc: OidcClient,
) -> Parts:
    """One of each part, around what is open already."""
    secret_key = decode_secret_key(settings.secret_key.get_secret_value())
    records = RedisRecords(database, redis)
    keys = SigningKeys(
        database,
        Sealer(secret_key, "identity signing keys"),
        lifetime=timedelta(days=settings.identity_signing_key_days),
    )
    checkpoints = AuditCheckpoints(database, keys)
    tokens = AccessTokens(keys, lifetime_s=settings.identity_access_token_s)
    told = SessionRevocations(database, revocations, token_lifetime_s=settings.identity_access_token_s)
    sessions = Sessions(database, tokens, told, lifetime=timedelta(days=settings.identity_session_days))
    mails = Mails(database, build_mailer(settings), Sealer(secret_key, "identity mails"))
    attempts = SignInAttempts(database)
    password_changes = PasswordChanges(
        database,
        passwords=passwords,
        attempts=attempts,
        revocations=told,
        mails=mails,
        tokens=LinkTokens(secret_key, "password resets", prefix="ias-pwr-"),
        public_url=settings.identity_public_url,
    )
    sealer = Sealer(secret_key, "identity second factors")
    factors = SecondFactors(
        database, attempts=attempts, password_changes=password_changes, revocations=told, sealer=sealer
    )
    providers = IdentityProviders(database, oidc, Sealer(secret_key, "identity providers"))
    return Parts(
        api_keys=ApiKeys(database, records, per_project_max=settings.identity_project_keys_max),
        audit_checkpoints=checkpoints,
        audit_exports=AuditExports(database, checkpoints),
        audit_log=AuditLog(database),
        cursors=Cursors(secret_key),
        identity_providers=providers,
        oidc_sign_ins=_build_oidc_sign_ins(
            secret_key, database, providers=providers, oidc=oidc, sessions=sessions, told=told, attempts=attempts
        ),
        invitations=_build_invitations(secret_key, settings, database, mails=mails, passwords=passwords, told=told),
        leak_reports=LeakReports(database, records, mails),
        mails=mails,
        members=Members(database, passwords, records, told),
        password_changes=password_changes,
        orgs=Orgs(database, records, told),
        explanations=Explanations(database),
        project_members=ProjectMembers(database, records, told),
        roles=Roles(database, records, told),
        projects=Projects(database, records),
        purges=Purges(database, records, retention=timedelta(days=settings.identity_deleted_days)),
        redis_records=records,
        second_factors=factors,
        service_accounts=ServiceAccounts(database, records),
        service_tokens=_build_service_tokens(settings, database, tokens),
        session_revocations=told,
        sessions=sessions,
        sign_ins=_build_sign_ins(
            secret_key, database, passwords=passwords, sessions=sessions, attempts=attempts, factors=factors
        ),
        signing_keys=keys,
        users=Users(database, passwords, records, told),
    )


def _build_service_tokens(settings: IdentitySettings, database: Database, tokens: AccessTokens) -> ServiceTokens:
    return ServiceTokens(database, tokens, settings.identity_service_clients, settings.identity_service_audiences)


def _build_invitations(
    secret_key: bytes,
    settings: IdentitySettings,
    database: Database,
    *,
    mails: Mails,
    passwords: Passwords,
    told: SessionRevocations,
) -> Invitations:
    return Invitations(
        database,
        mails=mails,
        passwords=passwords,
        tokens=LinkTokens(secret_key, "invitations", prefix="ias-inv-"),
        revocations=told,
        public_url=settings.identity_public_url,
    )


def _build_sign_ins(
    secret_key: bytes,
    database: Database,
    *,
    passwords: Passwords,
    sessions: Sessions,
    attempts: SignInAttempts,
    factors: SecondFactors,
) -> SignIns:
    return SignIns(
        database,
        passwords=passwords,
        sessions=sessions,
        attempts=attempts,
        second_factors=factors,
        tokens=LinkTokens(secret_key, "sign-in challenges", prefix="ias-sic-"),
    )


def _build_oidc_sign_ins(
    secret_key: bytes,
    database: Database,
    *,
    providers: IdentityProviders,
    oidc: OidcClient,
    sessions: Sessions,
    told: SessionRevocations,
    attempts: SignInAttempts,
) -> OidcSignIns:
    return OidcSignIns(
        database,
        providers=providers,
        oidc=oidc,
        sessions=sessions,
        revocations=told,
        attempts=attempts,
        tokens=LinkTokens(secret_key, "oidc states", prefix="ias-oidc-"),
        sealer=Sealer(secret_key, "identity oidc sign-ins"),
    )


async def _end(workers: "list[asyncio.Task[None]]", stop: asyncio.Event) -> None:
    """Let each worker end its round. A cancellation alone may get lost in a driver just when its answer arrives."""
    stop.set()
    _, late = await asyncio.wait(workers, timeout=_STOP_TIMEOUT_S)
    for worker in late:
        worker.cancel()

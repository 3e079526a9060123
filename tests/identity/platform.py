"""A running identity service, and somebody who calls it."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import FastAPI
from pydantic import SecretStr

from ias.identity.settings import IdentityConsumerSettings, IdentitySettings
from ias.identity.wiring import build_app, build_consumer
from ias.identity.workers.consumer import IdentityConsumer

ADMIN_EMAIL = "root@example.com"
ADMIN_PASSWORD = "correct horse battery"
PASSWORD = "a password of their own"
GATEWAY_SECRET = "gateway secret"
BILLING_SECRET = "billing secret"
SECRET_KEY = base64.b64encode(bytes(range(32))).decode()


def settings_for(database_url: str, redis_url: str, **more: Any) -> IdentitySettings:
    """Settings of a service under test: cheap passwords, quick pushing."""
    values: dict[str, Any] = {
        "secret_key": SecretStr(SECRET_KEY),
        "redis_url": SecretStr(redis_url),
        "redis_timeout_s": 1.0,
        "database_pool_size": 5,
        "identity_database_url": SecretStr(database_url),
        "identity_service_clients": {
            "gateway": hashlib.sha256(GATEWAY_SECRET.encode()).hexdigest(),
            "billing": hashlib.sha256(BILLING_SECRET.encode()).hexdigest(),
        },
        "identity_admin_email": ADMIN_EMAIL,
        "identity_admin_password": SecretStr(ADMIN_PASSWORD),
        "identity_bcrypt_rounds": 4,
        "identity_push_interval_s": 0.05,
        "identity_oidc_allow_loopback": True,
        "identity_mail_interval_s": 0.05,
    }
    return IdentitySettings(**(values | more))


@asynccontextmanager
async def running(settings: IdentitySettings) -> AsyncIterator["Identity"]:
    """The service, started; the administrator, signed in."""
    app = build_app(settings)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.router.lifespan_context(app))
        identity = Identity(app, stack)
        yield identity


@asynccontextmanager
async def consuming(database_url: str, redis_url: str, bus_url: str) -> AsyncIterator[IdentityConsumer]:
    """Identity's consumer, running while the block lasts."""
    told = settings_for(database_url, redis_url).model_dump()
    consumer = build_consumer(IdentityConsumerSettings(**told, bus_url=bus_url))
    stop = asyncio.Event()
    running = asyncio.create_task(consumer.run(stop))
    try:
        yield consumer
    finally:
        stop.set()
        await asyncio.wait_for(running, 20)


class Caller(httpx.AsyncClient):
    """A client with a token."""

    user_id: str = ""

    async def ok(self, method: str, path: str, body: Any = None) -> Any:
        """The answer's body, which must be a success."""
        answer = await self.request(method, path, json=body)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None


@dataclass
class Identity:
    """The app under test."""

    app: FastAPI
    stack: AsyncExitStack

    async def anonymous(self) -> Caller:
        """A client without a token."""
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return await self.stack.enter_async_context(Caller(transport=transport, base_url="http://identity"))

    async def sign_in(self, email: str = ADMIN_EMAIL, password: str = ADMIN_PASSWORD) -> Caller:
        """A client who signed in."""
        caller = await self.anonymous()
        session = await caller.ok("POST", "/identity/v1/sessions", {"email": email, "password": password})
        caller.headers["authorization"] = f"Bearer {session['access_token']}"
        caller.user_id = (await caller.ok("GET", "/identity/v1/me"))["id"]
        return caller

    async def service(self, audience: str = "identity") -> Caller:
        """The process of the platform that calls a service, with a token for it."""
        caller = await self.anonymous()
        name, secret = {"identity": ("gateway", GATEWAY_SECRET), "analytics": ("billing", BILLING_SECRET)}[audience]
        body = {"client_id": name, "client_secret": secret, "audience": audience}
        token = await caller.ok("POST", "/internal/service-tokens", body)
        caller.headers["authorization"] = f"Bearer {token['access_token']}"
        return caller

    async def member(self, admin: Caller, org_id: str, role: str, email: str | None = None) -> Caller:
        """A new user with a role in an org, signed in."""
        email = email or f"{role}-{org_id}@example.com"
        body = {"email": email, "role": role, "password": PASSWORD}
        await admin.ok("POST", f"/identity/v1/orgs/{org_id}/members", body)
        return await self.sign_in(email, PASSWORD)


async def eventually(check: Any, *, seconds: float = 10.0) -> Any:
    """The first true value that the async `check` gives."""
    async with asyncio.timeout(seconds):
        while not (value := await check()):
            await asyncio.sleep(0.02)
    return value

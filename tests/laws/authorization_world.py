"""Every management service at once, on real servers, with people who should be refused."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from fastapi import FastAPI
from joserfc import jwt
from tests.billing.usage import make_record, message
from tests.identity.platform import PASSWORD, SECRET_KEY, Caller, Identity, settings_for

from ias.analytics import wiring as analytics
from ias.analytics.core.counting import Counting
from ias.analytics.settings import AnalyticsSettings
from ias.billing import wiring as billing
from ias.billing.core.booking import Booking
from ias.billing.settings import BillingSettings
from ias.contracts.ids import uuid7
from ias.contracts.permissions import Role
from ias.contracts.usage_messages import check_message
from ias.gitops import wiring as gitops
from ias.gitops.settings import GitopsSettings
from ias.gitops.store import plans as plan_store
from ias.gitops.store.plans import Plan
from ias.identity import wiring as identity
from ias.identity.settings import IdentityConsumerSettings
from ias.kit.tokens import ALGORITHM
from ias.registry import wiring as registry
from ias.registry.settings import RegistrySettings

SERVICES = ("identity", "registry", "billing", "analytics", "gitops")
ABSENT_ID = "01900000-0000-7000-8000-000000000000"
ABSENT_REQUEST_ID = "req_01900000000070008000000000000000"


@dataclass
class World:
    """The services, an org with one of everything, and callers by what is wrong with them."""

    apps: dict[str, FastAPI]
    admin: Caller
    org_id: str
    suspended_org_id: str
    ids: dict[str, str] = field(default_factory=dict)
    """A real id of the org for each name of a path parameter."""
    tokens: dict[str, str] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=dict)

    @property
    def absent_ids(self) -> dict[str, str]:
        """For each name of a path parameter an id that nothing has."""
        return dict.fromkeys(self.ids, ABSENT_ID) | {"request_id": ABSENT_REQUEST_ID}

    async def call(self, service: str, request: dict[str, Any], token: str | None) -> httpx.Response:
        """One request to a service."""
        headers = {"authorization": f"Bearer {token}"} if token is not None else {}
        transport = httpx.ASGITransport(self.apps[service], raise_app_exceptions=False, client=("192.0.2.7", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await client.request(**request, headers=headers)


@asynccontextmanager
async def running_world(urls: dict[str, str], redis_url: str) -> AsyncIterator[World]:
    """The world, from one empty, migrated database for each service."""
    common: dict[str, Any] = {
        "secret_key": SECRET_KEY,
        "redis_url": redis_url,
        "bus_url": redis_url,
        "database_pool_size": 3,
        "audit_denials_per_caller_max": 100_000,
    }
    told = settings_for(urls["identity"], redis_url).model_dump() | common
    identity_settings = IdentityConsumerSettings(**told)
    apps = {"identity": identity.build_app(identity_settings)}

    async def jwks() -> dict[str, Any]:
        found: dict[str, Any] = await apps["identity"].state.parts.signing_keys.get_jwks()
        return found

    apps["registry"] = registry.assemble(
        RegistrySettings(**common, registry_database_url=urls["registry"], registry_allow_loopback=True),
        fetch_jwks=jwks,
    )
    apps["billing"] = billing.assemble(BillingSettings(**common, billing_database_url=urls["billing"]), fetch_jwks=jwks)
    apps["analytics"] = analytics.assemble(
        AnalyticsSettings(**common, analytics_database_url=urls["analytics"]), fetch_jwks=jwks
    )
    apps["gitops"] = gitops.assemble(GitopsSettings(**common, gitops_database_url=urls["gitops"]), fetch_jwks=jwks)
    async with AsyncExitStack() as stack:
        for app in apps.values():
            await stack.enter_async_context(app.router.lifespan_context(app))
        consumer, stop = identity.build_consumer(identity_settings), asyncio.Event()
        running = asyncio.create_task(consumer.run(stop))
        try:
            yield await _populate(apps, Identity(apps["identity"], stack))
        finally:
            stop.set()
            await asyncio.wait_for(running, 20)


async def _populate(apps: dict[str, FastAPI], service: Identity) -> World:
    admin = await service.sign_in()
    names = ("mine", "theirs", "suspended")
    mine, theirs, suspended = [await admin.ok("POST", "/identity/v1/orgs", {"name": name}) for name in names]
    org = f"/identity/v1/orgs/{mine['id']}"
    world = World(apps, admin, mine["id"], suspended["id"])
    project = await admin.ok("POST", f"{org}/projects", {"name": "chat"})
    path = f"/identity/v1/projects/{project['id']}"
    key = await admin.ok("POST", f"{path}/api-keys", {"name": "key"})
    revoked = await admin.ok("POST", f"{path}/api-keys", {"name": "revoked"})
    await admin.ok("DELETE", f"/identity/v1/api-keys/{revoked['id']}")
    world.tokens["revoked key"] = revoked["key"]
    account = await admin.ok("POST", f"{path}/service-accounts", {"name": "robot"})
    invited = {"email": "invited@example.com", "role": "viewer"}
    invitation = await admin.ok("POST", f"{org}/invitations", invited)
    for role in Role:
        member = await service.member(admin, mine["id"], role, f"{role}@example.com")
        _know(world, role, member)
    own_role = await admin.ok("POST", f"{org}/roles", {"name": "own", "permissions": []})
    held = {"role_id": own_role["id"], "user_id": world.users["viewer"]}
    assignment = await admin.ok("POST", f"{org}/role-assignments", held)
    _know(world, "owner elsewhere", await service.member(admin, theirs["id"], "owner", "elsewhere@example.com"))
    _know(world, "nobody", await service.member(admin, theirs["id"], "viewer", "nobody@example.com"))
    await admin.ok("DELETE", f"/identity/v1/orgs/{theirs['id']}/members/{world.users['nobody']}")
    nobody = await service.sign_in("nobody@example.com", PASSWORD)
    _know(world, "nobody", nobody)
    leaver = await service.member(admin, mine["id"], "owner", "suspended@example.com")
    _know(world, "suspended member", leaver)
    await admin.ok("PATCH", f"{org}/members/{leaver.user_id}", {"status": "suspended"})
    _know(world, "owner of a suspended org", await service.member(admin, suspended["id"], "owner", "stuck@example.com"))
    await admin.ok("PATCH", f"/identity/v1/orgs/{suspended['id']}", {"status": "suspended"})
    signed_out = await service.member(admin, mine["id"], "owner", "gone@example.com")
    _know(world, "revoked session", signed_out)
    await signed_out.ok("DELETE", "/identity/v1/sessions/current")
    world.users["expired"] = world.users["owner"]
    world.tokens["expired"] = await _expire(service, world.tokens["owner"])
    world.ids = {
        "org_id": mine["id"],
        "project_id": project["id"],
        "key_id": key["id"],
        "account_id": account["id"],
        "user_id": world.users["viewer"],
        "invitation_id": invitation["id"],
        "role_id": own_role["id"],
        "assignment_id": assignment["id"],
        # These belong to no org: there is nobody to hide them from.
        **dict.fromkeys(("model_id", "backend_id", "adapter_id", "session_id", "provider_id"), ABSENT_ID),
    }
    await _populate_others(world)
    return world


async def _populate_others(world: World) -> None:
    token = world.tokens["owner"]
    scope = {"kind": "org", "id": world.org_id}
    budget = {
        "org_id": world.org_id,
        "scope": scope,
        "window": "month",
        "limit_usd": "10",
        "mode": "hard",
        "at_limit": "require_override",
    }
    limit = {"org_id": world.org_id, "scope": scope, "metric": "requests_per_minute", "limit": 5}
    for noun, path, body in (("budget", "budgets", budget), ("rate_limit", "rate-limits", limit)):
        request = {"method": "POST", "url": f"/billing/v1/{path}", "json": body}
        answer = await world.call("billing", request, token)
        assert answer.status_code == 201, answer.text
        world.ids[f"{noun}_id"] = answer.json()["id"]
    more = {
        "amount_usd": "1",
        "expires_at": (datetime.now(UTC) + timedelta(days=1)).isoformat(),
        "reason": "Month's end.",
    }
    request = {"method": "POST", "url": f"/billing/v1/budgets/{world.ids['budget_id']}/raises", "json": more}
    answer = await world.call("billing", request, token)
    assert answer.status_code == 201, answer.text
    world.ids["raise_id"] = answer.json()["id"]
    channel = {"org_id": world.org_id, "kind": "email", "target": "finance@example.com"}
    request = {"method": "POST", "url": "/billing/v1/alert-channels", "json": channel}
    answer = await world.call("billing", request, token)
    assert answer.status_code == 201, answer.text
    world.ids["channel_id"] = answer.json()["id"]
    world.ids["plan_id"] = await _insert_plan(world)
    world.ids["request_id"] = await _serve_a_request(world)


async def _serve_a_request(world: World) -> str:
    """A request that a gateway served for the org, booked and counted as consumers do; its id."""
    record = make_record(world.org_id, project_id=world.ids["project_id"], api_key_id=world.ids["key_id"])
    records = check_message(message(record)).records
    await Booking(world.apps["billing"].state.ledger._database).book(records)
    await Counting(world.apps["analytics"].state.usage._database).count(records)
    return record.request_id


async def _insert_plan(world: World) -> str:
    """A plan as the database has it: making one needs billing at the other end of a network."""
    plan = Plan(
        id=uuid7(),
        org_id=UUID(world.org_id),
        status="planned",
        prune=False,
        documents=[],
        digest="",
        created_at=datetime.now(UTC),
        created_by="",
        request_id="",
        applied_at=None,
        applied_by=None,
        steps=[],
    )
    async with world.apps["gitops"].state.plans._database.transaction() as connection:
        await plan_store.insert_plan(connection, plan)
    return str(plan.id)


def _know(world: World, name: str, caller: Caller) -> None:
    world.users[name] = caller.user_id
    world.tokens[name] = caller.headers["authorization"].removeprefix("Bearer ")


async def _expire(service: Identity, token: str) -> str:
    """The token as it will be when its time is over, signed by identity's own key."""
    keys = service.app.state.parts.signing_keys
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    async with keys._database.transaction() as connection:
        key = await keys.get_private_key(connection)
    old = {**claims, "iat": int(time.time()) - 7200, "exp": int(time.time()) - 3600}
    return jwt.encode({"alg": ALGORITHM, "kid": key.kid}, old, key, algorithms=[ALGORITHM])

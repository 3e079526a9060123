"""Orgs and projects, and the walls between tenants."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import uuid4

import msgspec
import pytest
from redis.asyncio import Redis

from ias.contracts import redis_keys
from ias.contracts.api_keys import TenantRecord
from tests.identity.platform import Caller, Identity

ORGS = "/identity/v1/orgs"


@dataclass
class Tenants:
    """Two orgs that have nothing to do with each other."""

    org_id: str
    project_id: str
    key_id: str
    owner: Caller
    stranger: Caller


@pytest.fixture
async def tenants(identity: Identity, admin: Caller) -> Tenants:
    own = await admin.ok("POST", ORGS, {"name": "own"})
    other = await admin.ok("POST", ORGS, {"name": "other"})
    owner = await identity.member(admin, own["id"], "owner", "owner@own.example")
    [project] = (await owner.ok("GET", f"{ORGS}/{own['id']}/projects"))["data"]
    key = await owner.ok("POST", f"/identity/v1/projects/{project['id']}/api-keys", {"name": "key"})
    stranger = await identity.member(admin, other["id"], "owner", "owner@other.example")
    return Tenants(own["id"], project["id"], key["id"], owner, stranger)


async def read_tenant(redis: Redis, key: str) -> TenantRecord:
    raw = await redis.get(key)
    assert raw is not None
    return msgspec.json.decode(raw, type=TenantRecord)


async def test_an_org_has_a_default_project_and_its_creator_as_owner(admin: Caller) -> None:
    org = await admin.ok("POST", ORGS, {"name": "acme"})

    [project] = (await admin.ok("GET", f"{ORGS}/{org['id']}/projects"))["data"]
    [member] = (await admin.ok("GET", f"{ORGS}/{org['id']}/members"))["data"]

    assert (project["name"], project["is_default"]) == ("default", True)
    assert (member["user_id"], member["role"]) == (admin.user_id, "owner")


async def test_only_a_platform_admin_creates_orgs(tenants: Tenants) -> None:
    answer = await tenants.owner.post(ORGS, json={"name": "mine"})
    assert answer.status_code == 403


async def test_suspending_restoring_and_narrowing_reach_redis_with_growing_versions(
    admin: Caller, redis: Redis
) -> None:
    org = await admin.ok("POST", ORGS, {"name": "acme"})
    [project] = (await admin.ok("GET", f"{ORGS}/{org['id']}/projects"))["data"]
    places = {
        f"{ORGS}/{org['id']}": redis_keys.org(org["id"]),
        f"/identity/v1/projects/{project['id']}": redis_keys.project(project["id"]),
    }
    for path, key in places.items():
        await admin.ok("PATCH", path, {"status": "suspended"})
        assert (await read_tenant(redis, key)).status == "suspended"
        await admin.ok("PATCH", path, {"status": "active", "models": ["small", "large"]})
        await admin.ok("PATCH", path, {"status": "active"})
        narrowed = await read_tenant(redis, key)
        assert (narrowed.version, narrowed.status, narrowed.models) == (3, "active", ("small", "large"))
        changed = await admin.ok("PATCH", path, {"models": None, "name": "renamed"})
        assert (changed["models"], changed["name"], changed["version"]) == (None, "renamed", 4)
        assert (await read_tenant(redis, key)).models is None


async def test_two_projects_of_an_org_cannot_have_one_name(admin: Caller) -> None:
    org = await admin.ok("POST", ORGS, {"name": "acme"})
    made = await admin.ok("POST", f"{ORGS}/{org['id']}/projects", {"name": "chat"})
    again = await admin.post(f"{ORGS}/{org['id']}/projects", json={"name": "chat"})
    renamed = await admin.patch(f"/identity/v1/projects/{made['id']}", json={"name": "default"})
    assert [(answer.status_code, answer.json()["code"]) for answer in (again, renamed)] == [(409, "name_taken")] * 2


async def test_anothers_objects_and_absent_ones_get_the_same_404(tenants: Tenants) -> None:
    stranger = tenants.stranger
    absent = str(uuid4())
    cases = [
        ("GET", f"{ORGS}/%s", tenants.org_id, None),
        ("PATCH", f"{ORGS}/%s", tenants.org_id, {"name": "mine"}),
        ("GET", f"{ORGS}/%s/projects", tenants.org_id, None),
        ("POST", f"{ORGS}/%s/projects", tenants.org_id, {"name": "mine"}),
        ("GET", f"{ORGS}/%s/members", tenants.org_id, None),
        ("POST", f"{ORGS}/%s/invitations", tenants.org_id, {"email": "me@example.com", "role": "viewer"}),
        ("PATCH", f"{ORGS}/%s/members/{tenants.owner.user_id}", tenants.org_id, {"role": "viewer"}),
        ("DELETE", f"{ORGS}/%s/members/{tenants.owner.user_id}", tenants.org_id, None),
        ("GET", f"{ORGS}/%s/audit-log", tenants.org_id, None),
        ("GET", "/identity/v1/projects/%s", tenants.project_id, None),
        ("PATCH", "/identity/v1/projects/%s", tenants.project_id, {"name": "mine"}),
        ("GET", "/identity/v1/projects/%s/api-keys", tenants.project_id, None),
        ("POST", "/identity/v1/projects/%s/api-keys", tenants.project_id, {"name": "mine"}),
        ("GET", "/identity/v1/projects/%s/service-accounts", tenants.project_id, None),
        ("POST", "/identity/v1/projects/%s/service-accounts", tenants.project_id, {"name": "mine"}),
        ("GET", "/identity/v1/api-keys/%s", tenants.key_id, None),
        ("DELETE", "/identity/v1/api-keys/%s", tenants.key_id, None),
    ]
    for method, path, foreign_id, body in cases:
        foreign = await stranger.request(method, path % foreign_id, json=body)
        missing = await stranger.request(method, path % absent, json=body)
        assert (foreign.status_code, missing.status_code) == (404, 404), (method, path)
        assert foreign.content.replace(foreign_id.encode(), b"") == missing.content.replace(absent.encode(), b"")
    assert (await tenants.owner.ok("GET", f"/identity/v1/api-keys/{tenants.key_id}"))["status"] == "active"


async def test_a_list_of_orgs_shows_ones_own_alone(tenants: Tenants) -> None:
    page = await tenants.owner.ok("GET", ORGS)
    assert [org["id"] for org in page["data"]] == [tenants.org_id]


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        ("viewer", {"GET projects", "GET keys", "GET members"}),
        ("developer", {"GET projects", "GET keys", "GET members", "POST keys"}),
        ("finance", {"GET projects", "GET keys", "GET members"}),
        (
            "admin",
            {"GET projects", "GET keys", "GET members", "POST keys", "POST projects", "PATCH org", "GET audit"},
        ),
    ],
)
async def test_a_role_may_do_what_its_permissions_say_and_nothing_else(
    identity: Identity, admin: Caller, tenants: Tenants, role: str, allowed: set[str]
) -> None:
    caller = await identity.member(admin, tenants.org_id, role)
    calls = {
        "GET projects": ("GET", f"{ORGS}/{tenants.org_id}/projects", None),
        "GET keys": ("GET", f"/identity/v1/projects/{tenants.project_id}/api-keys", None),
        "GET members": ("GET", f"{ORGS}/{tenants.org_id}/members", None),
        "GET audit": ("GET", f"{ORGS}/{tenants.org_id}/audit-log", None),
        "POST keys": ("POST", f"/identity/v1/projects/{tenants.project_id}/api-keys", {"name": "key"}),
        "POST projects": ("POST", f"{ORGS}/{tenants.org_id}/projects", {"name": "new"}),
        "PATCH org": ("PATCH", f"{ORGS}/{tenants.org_id}", {"name": "new"}),
    }
    for name, (method, path, body) in calls.items():
        answer = await caller.request(method, path, json=body)
        assert answer.is_success == (name in allowed), (role, name, answer.text)
        assert answer.is_success or (answer.status_code, answer.json()["code"]) == (403, "forbidden")


async def test_a_list_is_read_page_by_page_to_its_end(admin: Caller) -> None:
    org = await admin.ok("POST", ORGS, {"name": "acme"})
    for number in range(4):
        await admin.ok("POST", f"{ORGS}/{org['id']}/projects", {"name": f"p{number}"})
    names, cursor = [], ""
    while True:
        page = await admin.ok("GET", f"{ORGS}/{org['id']}/projects?limit=2{cursor}")
        names.append([project["name"] for project in page["data"]])
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert names == [["p3", "p2"], ["p1", "p0"], ["default"]]


async def test_a_cursor_that_was_changed_or_belongs_elsewhere_is_a_clear_400(admin: Caller) -> None:
    org = await admin.ok("POST", ORGS, {"name": "acme"})
    await admin.ok("POST", ORGS, {"name": "other"})
    cursor = (await admin.ok("GET", f"{ORGS}?limit=1"))["next_cursor"]
    changed = ("A" if cursor[0] != "A" else "B") + cursor[1:]
    for path in (f"{ORGS}?cursor={changed}", f"{ORGS}?cursor=%00", f"{ORGS}/{org['id']}/projects?cursor={cursor}"):
        answer = await admin.get(path)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")
    assert (await admin.get(f"{ORGS}?limit=1000")).status_code == 422


async def test_a_body_is_refused_that_is_no_json_too_large_or_says_too_much(admin: Caller) -> None:
    json_type = {"content-type": "application/json"}

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 100_000

    refused = [
        await admin.post(ORGS, content=b"{nonsense", headers=json_type),
        await admin.post(ORGS, content=b"\xff\xfe", headers=json_type),
        await admin.post(ORGS, json={"name": "x", "id": str(uuid4())}),
        await admin.post(ORGS, json={"name": "x", "platform_admin": True}),
        await admin.post(ORGS, json={"name": 7}),
        await admin.post(ORGS, json={"name": "  "}),
        await admin.post(ORGS, json=["name"]),
        await admin.post(ORGS, content=b" " * 1_100_000, headers=json_type),
        await admin.post(ORGS, content=chunks(), headers=json_type),
        await admin.get(f"{ORGS}/not-an-id"),
    ]
    assert [answer.status_code for answer in refused] == [400, 400, 422, 422, 422, 422, 422, 413, 413, 422]
    assert {answer.headers["content-type"] for answer in refused} == {"application/problem+json"}


async def test_nothing_answers_without_a_token_but_what_is_declared_public(identity: Identity) -> None:
    caller = await identity.anonymous()
    document = await caller.ok("GET", "/identity/v1/openapi.json")
    some_id = str(uuid4())
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if "x-ias-public" in operation:
                continue
            assert operation["security"], path
            url = re.sub(r"\{\w+\}", some_id, path)
            answer = await caller.request(method.upper(), url, json={})
            assert answer.status_code == 401, (method, path)

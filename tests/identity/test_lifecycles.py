"""Orgs and projects are deleted, restored and purged; gateways hear of each at once."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import msgspec
import pytest
from redis.asyncio import Redis

from ias.contracts import redis_keys
from ias.contracts.api_keys import KeyRecord, TenantRecord, digest_key
from tests.identity.database import execute, fetch
from tests.identity.platform import PASSWORD, Caller, Identity

ORGS = "/identity/v1/orgs"


@pytest.fixture
async def org(admin: Caller) -> dict[str, str]:
    made: dict[str, str] = await admin.ok("POST", ORGS, {"name": "acme"})
    return made


@pytest.fixture
async def owner(identity: Identity, admin: Caller, org: dict[str, str]) -> Caller:
    return await identity.member(admin, org["id"], "owner")


async def status_of(redis: Redis, key: str) -> str:
    return msgspec.json.decode(await redis.get(key) or b"{}", type=TenantRecord).status


async def test_an_org_is_deleted_and_restored_by_its_owner_with_all_that_is_in_it(
    identity: Identity, org: dict[str, str], owner: Caller, redis: Redis
) -> None:
    path = f"{ORGS}/{org['id']}"
    for _ in range(2):
        assert (await owner.delete(path)).headers["x-ias-in-force"] == "true"
        owner = await identity.sign_in(f"owner-{org['id']}@example.com", PASSWORD)
    assert await status_of(redis, redis_keys.org(org["id"])) == "deleted"
    assert [one["status"] for one in (await owner.ok("GET", ORGS))["data"]] == ["deleted"]

    restored = await owner.ok("POST", f"{path}/restore")
    assert (restored["status"], restored["deleted_at"]) == ("active", None)
    assert await status_of(redis, redis_keys.org(org["id"])) == "active"
    owner = await identity.sign_in(f"owner-{org['id']}@example.com", PASSWORD)
    assert await owner.ok("POST", f"{path}/restore") == restored
    [project] = (await owner.ok("GET", f"{path}/projects"))["data"]
    assert project["is_default"]


async def test_all_that_an_owner_may_do_in_a_deleted_org_is_to_restore_it(
    identity: Identity, org: dict[str, str], owner: Caller
) -> None:
    path = f"{ORGS}/{org['id']}"
    [project] = (await owner.ok("GET", f"{path}/projects"))["data"]
    refused = [
        ("GET", f"{path}/projects", None),
        ("GET", f"{path}/members", None),
        ("GET", f"{path}/audit-log", None),
        ("PATCH", path, {"status": "active"}),
        ("POST", f"{path}/projects", {"name": "new"}),
        ("POST", f"{path}/invitations", {"email": "new@example.com", "role": "owner"}),
        ("POST", f"/identity/v1/projects/{project['id']}/api-keys", {"name": "new"}),
    ]
    await owner.ok("DELETE", path)
    for method, url, body in refused:  # with the token that deleted it
        answer = await owner.request(method, url, json=body)
        assert (answer.status_code, answer.json()["code"]) == (401, "token_revoked"), url
    owner = await identity.sign_in(f"owner-{org['id']}@example.com", PASSWORD)
    for method, url, body in refused:
        assert (await owner.request(method, url, json=body)).status_code == 403, url
    why = f"/identity/v1/authz/explain?org_id={org['id']}&permission="
    assert (await owner.ok("GET", why + "api_keys:write"))["missing"] == "role_lacks_permission"
    assert [one["role"] for one in (await owner.ok("GET", why + "orgs:delete"))["granted_by"]] == ["restorer"]


async def test_what_the_platform_deleted_the_platform_alone_restores(
    identity: Identity, admin: Caller, org: dict[str, str], owner: Caller, redis: Redis
) -> None:
    path = f"{ORGS}/{org['id']}"
    await admin.ok("DELETE", path)
    owner = await identity.sign_in(f"owner-{org['id']}@example.com", PASSWORD)
    assert (await owner.ok("GET", path))["deleted_by"] == "platform"
    await owner.ok("DELETE", path)  # which changes nothing
    refused = await owner.post(f"{path}/restore")
    assert (refused.status_code, refused.json()["code"]) == (403, "deleted_by_platform")
    assert await status_of(redis, redis_keys.org(org["id"])) == "deleted"
    restored = await admin.ok("POST", f"{path}/restore")
    assert (restored["status"], restored["deleted_by"]) == ("active", None)


async def test_nobody_makes_anything_in_a_deleted_org(admin: Caller, org: dict[str, str]) -> None:
    path = f"{ORGS}/{org['id']}"
    [project] = (await admin.ok("GET", f"{path}/projects"))["data"]
    await admin.ok("DELETE", path)
    for method, url, body in [
        ("PATCH", path, {"status": "active"}),
        ("POST", f"{path}/projects", {"name": "new"}),
        ("POST", f"/identity/v1/projects/{project['id']}/api-keys", {"name": "new"}),
    ]:
        answer = await admin.request(method, url, json=body)
        assert (answer.status_code, answer.json()["code"]) == (409, "org_deleted"), url


async def test_what_the_platform_suspended_the_platform_alone_restores(
    identity: Identity, admin: Caller, org: dict[str, str], owner: Caller, redis: Redis
) -> None:
    path, key = f"{ORGS}/{org['id']}", redis_keys.org(org["id"])
    assert (await owner.ok("PATCH", path, {"status": "suspended"}))["suspended_by"] == "org"
    taken_over = await admin.ok("PATCH", path, {"status": "suspended"})
    assert taken_over["suspended_by"] == "platform"
    refused = await owner.patch(path, json={"status": "active"})
    assert (refused.status_code, refused.json()["code"]) == (403, "suspended_by_platform")
    await owner.ok("PATCH", path, {"status": "suspended", "name": "renamed"})

    await owner.ok("DELETE", path)
    owner = await identity.sign_in(f"owner-{org['id']}@example.com", PASSWORD)
    restored = await owner.ok("POST", f"{path}/restore")

    assert (restored["status"], restored["suspended_by"]) == ("suspended", "platform")
    assert await status_of(redis, key) == "suspended"
    owner = await identity.sign_in(f"owner-{org['id']}@example.com", PASSWORD)
    assert (await owner.patch(path, json={"status": "active"})).status_code == 403
    admin = await identity.sign_in()
    again = await admin.ok("PATCH", path, {"status": "active"})
    assert (again["status"], again["suspended_by"]) == ("active", None)
    assert await status_of(redis, key) == "active"
    for status in ("suspended", "active"):  # what an org does to itself it takes back
        await owner.ok("PATCH", path, {"status": status})


async def test_an_admin_cannot_delete_an_org_and_its_members_lose_it_at_once(
    identity: Identity, admin: Caller, org: dict[str, str], owner: Caller
) -> None:
    member = await identity.member(admin, org["id"], "admin")
    assert (await member.delete(f"{ORGS}/{org['id']}")).status_code == 403
    await owner.ok("DELETE", f"{ORGS}/{org['id']}")
    assert (await member.get(f"{ORGS}/{org['id']}")).status_code == 401
    again = await identity.sign_in(f"admin-{org['id']}@example.com", "a password of their own")
    assert (await again.get(f"{ORGS}/{org['id']}")).status_code in (403, 404)


async def test_a_project_is_deleted_and_restored_but_not_the_default_one(
    owner: Caller, org: dict[str, str], redis: Redis
) -> None:
    [default] = (await owner.ok("GET", f"{ORGS}/{org['id']}/projects"))["data"]
    refused = await owner.delete(f"/identity/v1/projects/{default['id']}")
    assert (refused.status_code, refused.json()["code"]) == (409, "default_project")
    made = await owner.ok("POST", f"{ORGS}/{org['id']}/projects", {"name": "chat"})
    path = f"/identity/v1/projects/{made['id']}"

    await owner.ok("DELETE", path)
    await owner.ok("DELETE", path)
    assert await status_of(redis, redis_keys.project(made["id"])) == "deleted"
    for method, url in (("PATCH", path), ("POST", f"{path}/api-keys"), ("POST", f"{path}/service-accounts")):
        answer = await owner.request(method, url, json={"name": "x"})
        assert (answer.status_code, answer.json()["code"]) == (409, "project_deleted"), url

    assert (await owner.ok("POST", f"{path}/restore"))["status"] == "active"
    assert await status_of(redis, redis_keys.project(made["id"])) == "active"


async def test_what_was_deleted_long_ago_is_purged_and_what_was_not_stays(
    *, identity: Identity, admin: Caller, owner: Caller, org: dict[str, str], redis: Redis, database_url: str
) -> None:
    purges = identity.app.state.parts.purges
    projects = [await owner.ok("POST", f"{ORGS}/{org['id']}/projects", {"name": name}) for name in ("old", "young")]
    keys = [await owner.ok("POST", f"/identity/v1/projects/{made['id']}/api-keys", {"name": "k"}) for made in projects]
    await owner.ok("POST", f"/identity/v1/api-keys/{keys[0]['id']}/rotate", {})
    for made in projects:
        await owner.ok("DELETE", f"/identity/v1/projects/{made['id']}")
    await execute(database_url, "UPDATE projects SET deleted_at = now() - interval '31 days' WHERE name = 'old'")

    assert await purges.purge_expired() == 1
    assert await purges.purge_expired() == 0
    answers = [(await owner.get(f"/identity/v1/projects/{made['id']}")).status_code for made in projects]
    assert answers == [404, 200]
    assert not await redis.exists(redis_keys.api_key(digest_key(keys[0]["key"])), redis_keys.project(projects[0]["id"]))
    assert await redis.exists(redis_keys.api_key(digest_key(keys[1]["key"])))

    await owner.ok("POST", f"{ORGS}/{org['id']}/invitations", {"email": "ann@example.com", "role": "viewer"})
    await owner.ok("DELETE", f"{ORGS}/{org['id']}")
    await execute(database_url, "UPDATE orgs SET deleted_at = now() - interval '31 days' WHERE status = 'deleted'")
    assert await purges.purge_expired() == 1
    admin = await identity.sign_in()
    assert (await admin.get(f"{ORGS}/{org['id']}")).status_code == 404
    assert (await admin.post(f"{ORGS}/{org['id']}/restore")).status_code == 404
    for table in ("projects", "members", "invitations", "api_keys", "retired_digests"):
        assert not await fetch(database_url, f"SELECT 1 FROM {table}"), table  # noqa: S608  # a table of the list
    assert await status_of(redis, redis_keys.org(org["id"])) == "deleted"
    assert await fetch(database_url, "SELECT 1 FROM audit_log WHERE action = 'org.purge'")


async def test_processes_that_purge_together_purge_once(
    identity: Identity, owner: Caller, org: dict[str, str], database_url: str
) -> None:
    await owner.ok("DELETE", f"{ORGS}/{org['id']}")
    purges = identity.app.state.parts.purges
    purges._retention = timedelta(0)
    assert sum([await purges.purge_expired(), await purges.purge_expired()]) == 1
    assert len(await fetch(database_url, "SELECT 1 FROM audit_log WHERE action = 'org.purge'")) == 1


async def test_what_a_service_account_may_do_its_keys_may(
    admin: Caller, org: dict[str, str], read_key: Callable[[str], object]
) -> None:
    [project] = (await admin.ok("GET", f"{ORGS}/{org['id']}/projects"))["data"]
    accounts = f"/identity/v1/projects/{project['id']}/service-accounts"
    account = await admin.ok("POST", accounts, {"name": "ci"})
    await admin.ok("POST", accounts, {"name": "cd"})
    body = {"name": "ci", "service_account_id": account["id"]}
    key = await admin.ok("POST", f"/identity/v1/projects/{project['id']}/api-keys", body)
    path = f"/identity/v1/service-accounts/{account['id']}"

    for status in ("suspended", "active"):
        assert (await admin.ok("PATCH", path, {"status": status}))["status"] == status
        assert (await read_key(key["key"])).status == status  # type: ignore[misc,attr-defined]
    assert (await admin.ok("PATCH", path, {"name": "build"}))["name"] == "build"
    assert (await admin.ok("GET", path))["name"] == "build"
    assert (await admin.patch(path, json={"name": "cd"})).status_code == 409


async def test_a_deleted_service_account_takes_its_keys_along_and_leaves_its_name(
    admin: Caller, org: dict[str, str], read_key: Callable[[str], Awaitable[KeyRecord]], database_url: str
) -> None:
    [project] = (await admin.ok("GET", f"{ORGS}/{org['id']}/projects"))["data"]
    accounts, keys = [f"/identity/v1/projects/{project['id']}/{noun}" for noun in ("service-accounts", "api-keys")]
    account = await admin.ok("POST", accounts, {"name": "ci"})
    key = await admin.ok("POST", keys, {"name": "ci", "service_account_id": account["id"]})
    own = await admin.ok("POST", keys, {"name": "own"})
    path = f"/identity/v1/service-accounts/{account['id']}"

    deleted = await admin.delete(path)

    assert (deleted.status_code, deleted.headers["x-ias-in-force"]) == (204, "true")
    assert [(await read_key(text)).status for text in (key["key"], own["key"])] == ["revoked", "active"]
    for method, body in (("GET", None), ("PATCH", {"status": "active"}), ("DELETE", None)):
        assert (await admin.request(method, path, json=body)).status_code == 404
    assert (await admin.post(keys, json={"name": "x", "service_account_id": account["id"]})).status_code == 422
    assert (await admin.ok("GET", accounts))["data"] == []
    await admin.ok("POST", accounts, {"name": "ci"})
    found = await fetch(database_url, "SELECT action FROM audit_log ORDER BY sequence DESC LIMIT 3")
    assert {"service_account.delete", "api_key.revoke"} <= {row["action"] for row in found}


async def test_a_key_made_while_its_service_account_is_deleted_opens_nothing(
    admin: Caller, org: dict[str, str], database_url: str
) -> None:
    [project] = (await admin.ok("GET", f"{ORGS}/{org['id']}/projects"))["data"]
    accounts, keys = [f"/identity/v1/projects/{project['id']}/{noun}" for noun in ("service-accounts", "api-keys")]
    for number in range(5):
        account = await admin.ok("POST", accounts, {"name": f"ci {number}"})
        body = {"name": "racing", "service_account_id": account["id"]}
        await asyncio.gather(
            admin.delete(f"/identity/v1/service-accounts/{account['id']}"),
            *(admin.post(keys, json=body) for _ in range(3)),
        )
    assert await fetch(database_url, "SELECT 1 FROM api_keys WHERE status = 'active'") == []

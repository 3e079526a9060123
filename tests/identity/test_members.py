"""Who belongs to an org, and what no change of members may do."""

import asyncio
from uuid import uuid4

import msgspec
import pytest
from redis.asyncio import Redis

from ias.contracts import redis_keys
from ias.contracts.api_keys import KeyRecord, digest_key
from tests.identity.database import execute
from tests.identity.platform import PASSWORD, Caller, Identity


@pytest.fixture
async def org_id(admin: Caller) -> str:
    org = await admin.ok("POST", "/identity/v1/orgs", {"name": "acme"})
    return str(org["id"])


@pytest.fixture
def members(org_id: str) -> str:
    return f"/identity/v1/orgs/{org_id}/members"


async def test_a_user_who_exists_joins_a_second_org_and_keeps_their_password(
    identity: Identity, admin: Caller, org_id: str, members: str
) -> None:
    await identity.member(admin, org_id, "viewer", "ann@example.com")
    second = await admin.ok("POST", "/identity/v1/orgs", {"name": "second"})

    body = {"email": "ANN@example.com", "role": "developer", "password": "somebody else's idea"}
    added = await admin.ok("POST", f"/identity/v1/orgs/{second['id']}/members", body)

    me = await (await identity.sign_in("ann@example.com", PASSWORD)).ok("GET", "/identity/v1/me")
    assert me["id"] == added["user_id"]
    assert {(item["org_id"], item["role"]) for item in me["memberships"]} == {
        (org_id, "viewer"),
        (second["id"], "developer"),
    }
    assert "api_keys:write" in me["memberships"][1]["permissions"]
    again = await admin.post(members, json={"email": "ann@example.com", "role": "viewer"})
    assert (again.status_code, again.json()["code"]) == (409, "already_member")


async def test_a_member_that_makes_no_sense_is_refused(admin: Caller, members: str) -> None:
    for wrong in (
        {"password": None},
        {"password": "short"},
        {"password": "x" * 73},
        {"email": "no address"},
        {"email": "two@example.com\uff20example.com"},
        {"email": "zero\u200bwidth@example.com"},
        {"role": "king"},
        {"platform_admin": True},
    ):
        body = {"email": "new@example.com", "role": "viewer", "password": PASSWORD, **wrong}
        answer = await admin.post(members, json=body)
        assert answer.status_code == 422, wrong
        assert str(body["password"] or PASSWORD) not in answer.text


async def test_the_last_owner_can_neither_leave_nor_step_down(admin: Caller, members: str) -> None:
    demoted = await admin.patch(f"{members}/{admin.user_id}", json={"role": "admin"})
    removed = await admin.delete(f"{members}/{admin.user_id}")
    assert [(answer.status_code, answer.json()["code"]) for answer in (demoted, removed)] == [(409, "last_owner")] * 2


async def test_of_two_owners_who_demote_each_other_one_stays(
    identity: Identity, admin: Caller, org_id: str, members: str
) -> None:
    owners = [await identity.member(admin, org_id, "owner", f"{name}@example.com") for name in ("ann", "bob")]
    await admin.ok("DELETE", f"{members}/{admin.user_id}")

    answers = await asyncio.gather(
        owners[0].patch(f"{members}/{owners[1].user_id}", json={"role": "viewer"}),
        owners[1].patch(f"{members}/{owners[0].user_id}", json={"role": "viewer"}),
    )

    # Whoever comes second is no owner any more; when they come late enough, their token says so already.
    assert sorted(answer.status_code for answer in answers) in ([200, 401], [200, 403])
    roles = [member["role"] for member in (await (await identity.sign_in()).ok("GET", members))["data"]]
    assert sorted(roles) == ["owner", "viewer"]


async def test_an_admin_makes_and_unmakes_no_owner(
    identity: Identity, admin: Caller, org_id: str, members: str
) -> None:
    caller = await identity.member(admin, org_id, "admin")
    viewer = await identity.member(admin, org_id, "viewer")
    refused = [
        await caller.patch(f"{members}/{caller.user_id}", json={"role": "owner"}),
        await caller.patch(f"{members}/{admin.user_id}", json={"role": "viewer"}),
        await caller.delete(f"{members}/{admin.user_id}"),
    ]
    assert [answer.status_code for answer in refused] == [403] * 3
    changed = await caller.ok("PATCH", f"{members}/{viewer.user_id}", {"role": "developer"})
    assert (changed["role"], changed["version"]) == ("developer", 2)


async def test_whoever_leaves_takes_their_own_keys_along_but_not_those_of_service_accounts(
    identity: Identity, admin: Caller, org_id: str, members: str, redis: Redis
) -> None:
    developer = await identity.member(admin, org_id, "developer")
    [project] = (await developer.ok("GET", f"/identity/v1/orgs/{org_id}/projects"))["data"]
    path = f"/identity/v1/projects/{project['id']}"
    account = await developer.ok("POST", f"{path}/service-accounts", {"name": "ci"})
    own = await developer.ok("POST", f"{path}/api-keys", {"name": "own"})
    shared = await developer.ok("POST", f"{path}/api-keys", {"name": "ci", "service_account_id": account["id"]})

    await admin.ok("DELETE", f"{members}/{developer.user_id}")

    statuses = [
        msgspec.json.decode((await redis.get(redis_keys.api_key(digest_key(key["key"])))) or b"", type=KeyRecord).status
        for key in (own, shared)
    ]
    assert statuses == ["revoked", "active"]
    assert (await admin.delete(f"{members}/{developer.user_id}")).status_code == 404


async def test_a_role_in_one_project_counts_there_alone(
    identity: Identity, admin: Caller, org_id: str, database_url: str
) -> None:
    viewer = await identity.member(admin, org_id, "viewer", "ann@example.com")
    project = await admin.ok("POST", f"/identity/v1/orgs/{org_id}/projects", {"name": "hers"})
    other = await admin.ok("POST", f"/identity/v1/orgs/{org_id}/projects", {"name": "other"})
    statement = "INSERT INTO project_roles (id, org_id, project_id, user_id, role, created_at) VALUES"
    values = (uuid4(), org_id, project["id"], viewer.user_id)
    await execute(database_url, f"{statement} ($1, $2, $3, $4, 'developer', now())", *values)

    viewer = await identity.sign_in("ann@example.com", PASSWORD)

    answers = [
        await viewer.post(f"/identity/v1/projects/{place['id']}/api-keys", json={"name": "key"})
        for place in (project, other)
    ]
    assert [answer.status_code for answer in answers] == [201, 403]
    assert (await viewer.ok("GET", "/identity/v1/me"))["project_roles"][0]["project_id"] == project["id"]


async def test_a_suspended_member_can_do_nothing_in_the_org_until_restored(
    identity: Identity, admin: Caller, org_id: str, members: str, redis: Redis
) -> None:
    developer = await identity.member(admin, org_id, "developer", "dev@example.com")
    [project] = (await developer.ok("GET", f"/identity/v1/orgs/{org_id}/projects"))["data"]
    key = await developer.ok("POST", f"/identity/v1/projects/{project['id']}/api-keys", {"name": "own"})

    async def key_status() -> str:
        stored = await redis.get(redis_keys.api_key(digest_key(key["key"])))
        return msgspec.json.decode(stored or b"", type=KeyRecord).status

    suspended = await admin.ok("PATCH", f"{members}/{developer.user_id}", {"status": "suspended"})
    assert (suspended["status"], suspended["role"], await key_status()) == ("suspended", "developer", "suspended")
    assert (await developer.get(f"/identity/v1/orgs/{org_id}")).status_code == 401
    developer = await identity.sign_in("dev@example.com", PASSWORD)
    # They know nothing of the org any more; `403` is of whoever holds nothing anywhere.
    assert (await developer.get(f"/identity/v1/orgs/{org_id}")).status_code in (403, 404)

    await admin.ok("PATCH", f"{members}/{developer.user_id}", {"status": "active"})
    assert await key_status() == "active"
    developer = await identity.sign_in("dev@example.com", PASSWORD)
    await developer.ok("GET", f"/identity/v1/orgs/{org_id}")


async def test_the_last_owner_who_is_not_suspended_stays(
    identity: Identity, admin: Caller, org_id: str, members: str
) -> None:
    other = await identity.member(admin, org_id, "owner")
    await admin.ok("PATCH", f"{members}/{other.user_id}", {"status": "suspended"})
    for answer in (
        await admin.patch(f"{members}/{admin.user_id}", json={"status": "suspended"}),
        await admin.patch(f"{members}/{admin.user_id}", json={"role": "viewer"}),
        await admin.delete(f"{members}/{admin.user_id}"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "last_owner")


async def test_everybody_may_leave_but_the_last_owner(
    *, identity: Identity, admin: Caller, org_id: str, members: str, redis: Redis
) -> None:
    developer = await identity.member(admin, org_id, "developer", "dev@example.com")
    [project] = (await developer.ok("GET", f"/identity/v1/orgs/{org_id}/projects"))["data"]
    key = await developer.ok("POST", f"/identity/v1/projects/{project['id']}/api-keys", {"name": "own"})
    own = f"/identity/v1/me/memberships/{org_id}"

    left = await developer.delete(own)

    assert (left.status_code, left.headers["x-ias-in-force"]) == (204, "true")
    assert (await developer.get(f"/identity/v1/orgs/{org_id}")).status_code == 401
    stored = await redis.get(redis_keys.api_key(digest_key(key["key"])))
    assert msgspec.json.decode(stored or b"", type=KeyRecord).status == "revoked"
    developer = await identity.sign_in("dev@example.com", PASSWORD)
    assert (await developer.ok("GET", "/identity/v1/me"))["memberships"] == []
    for path in (own, f"/identity/v1/me/memberships/{uuid4()}"):
        assert (await developer.delete(path)).status_code == 404
    stays = await admin.delete(own)
    assert (stays.status_code, stays.json()["code"]) == (409, "last_owner")
    assert [member["user_id"] for member in (await admin.ok("GET", members))["data"]] == [admin.user_id]

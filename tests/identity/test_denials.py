"""Every refusal is in the audit log, and no flood of them fills it."""

from typing import Any

import pytest

from tests.identity.platform import Caller, Identity, eventually


@pytest.fixture
async def orgs(admin: Caller) -> list[str]:
    made = [await admin.ok("POST", "/identity/v1/orgs", {"name": name}) for name in ("ours", "theirs")]
    return [org["id"] for org in made]


async def denials_of(admin: Caller, org_id: str | None, **filters: str) -> list[dict[str, Any]]:
    path = f"/identity/v1/orgs/{org_id}/audit-log" if org_id else "/identity/v1/audit-log"
    found: list[dict[str, Any]] = (await admin.get(path, params={"outcome": "denied", **filters})).json()["data"]
    return found


async def test_a_role_that_does_not_suffice_is_in_the_orgs_log(
    identity: Identity, admin: Caller, orgs: list[str]
) -> None:
    viewer = await identity.member(admin, orgs[0], "viewer")
    path = f"/identity/v1/orgs/{orgs[0]}/projects"
    headers = {"x-request-id": "req_denied_here", "user-agent": "curious/1.0"}
    assert (await viewer.post(path, json={"name": "x"}, headers=headers)).status_code == 403

    [entry] = await eventually(lambda: denials_of(admin, orgs[0]))
    assert (entry["actor_id"], entry["action"], entry["reason"]) == (viewer.user_id, "projects:write", "forbidden")
    assert (entry["target_kind"], entry["target_id"], entry["count"]) == ("route", f"POST {path}", 1)
    assert (entry["request_id"], entry["user_agent"]) == ("req_denied_here", "curious/1.0")
    assert entry["source_ip"]


async def test_a_404_that_hides_another_org_is_in_that_orgs_log_and_one_of_an_absent_org_in_the_platforms(
    identity: Identity, admin: Caller, orgs: list[str]
) -> None:
    ours, theirs = orgs
    owner = await identity.member(admin, ours, "owner")
    nowhere = "01900000-0000-7000-8000-000000000000"
    for org_id in (theirs, nowhere):
        assert (await owner.get(f"/identity/v1/orgs/{org_id}")).status_code == 404

    [probe] = await eventually(lambda: denials_of(admin, theirs, actor_id=owner.user_id))
    assert (probe["target_id"], probe["reason"]) == (f"GET /identity/v1/orgs/{theirs}", "not_found")
    [guess] = await eventually(lambda: denials_of(admin, None, actor_id=owner.user_id))
    assert (guess["target_id"], guess["org_id"]) == (f"GET /identity/v1/orgs/{nowhere}", None)
    assert await denials_of(admin, ours) == []


async def test_a_404_that_may_hide_another_orgs_object_is_in_the_log_of_the_callers_org(
    identity: Identity, admin: Caller, orgs: list[str]
) -> None:
    ours, theirs = orgs
    owner = await identity.member(admin, ours, "owner")
    [project] = (await admin.ok("GET", f"/identity/v1/orgs/{theirs}/projects"))["data"]
    probed = {project["id"], "01900000-0000-7000-8000-000000000000"}
    for project_id in probed:
        assert (await owner.get(f"/identity/v1/projects/{project_id}")).status_code == 404

    await identity.app.state.denials.flush()
    found = await denials_of(admin, ours, actor_id=owner.user_id)
    assert {entry["target_id"] for entry in found} == {f"GET /identity/v1/projects/{one}" for one in probed}


async def test_a_request_without_a_valid_token_is_in_the_platforms_log(identity: Identity, admin: Caller) -> None:
    nobody = await identity.anonymous()
    assert (await nobody.get("/identity/v1/orgs")).status_code == 401
    [entry] = await eventually(lambda: denials_of(admin, None))
    assert (entry["actor_kind"], entry["actor_id"], entry["reason"]) == ("anonymous", None, "unauthenticated")
    assert (entry["action"], entry["target_id"]) == ("orgs:read", "GET /identity/v1/orgs")


async def test_what_is_public_and_what_is_merely_absent_is_no_denial(identity: Identity, admin: Caller) -> None:
    nobody = await identity.anonymous()
    assert (await nobody.post("/identity/v1/sessions", json={"email": "a@b.c", "password": "x" * 9})).status_code == 401
    assert (await admin.get("/identity/v1/orgs/01900000-0000-7000-8000-000000000000")).status_code == 404
    await identity.app.state.denials.flush(everything=True)
    assert await denials_of(admin, None) == []

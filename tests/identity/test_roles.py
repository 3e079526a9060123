"""Roles of an org's own and roles in single projects: what they open, what they never can, and how they end."""

from dataclasses import dataclass
from uuid import uuid4

import pytest

from ias.contracts.permissions import ROLE_PERMISSIONS, Role
from tests.identity.database import execute
from tests.identity.platform import PASSWORD, Caller, Identity

ORGS = "/identity/v1/orgs"


@dataclass
class Team:
    """An org with an owner, an admin and a viewer, and two projects."""

    org_id: str
    projects: list[str]
    owner: Caller
    admin: Caller
    viewer: Caller

    @property
    def path(self) -> str:
        return f"{ORGS}/{self.org_id}"

    def keys(self, project: int) -> str:
        return f"/identity/v1/projects/{self.projects[project]}/api-keys"


@pytest.fixture
async def team(identity: Identity, admin: Caller) -> Team:
    org = await admin.ok("POST", ORGS, {"name": "acme"})
    members = [
        await identity.member(admin, org["id"], role, f"{role}@acme.example") for role in ("owner", "admin", "viewer")
    ]
    projects = [
        (await admin.ok("POST", f"{ORGS}/{org['id']}/projects", {"name": name}))["id"] for name in ("one", "two")
    ]
    return Team(org["id"], projects, *members)


async def again(identity: Identity, role: str) -> Caller:
    return await identity.sign_in(f"{role}@acme.example", PASSWORD)


async def may(caller: Caller, path: str) -> int:
    return (await caller.post(path, json={"name": "k"})).status_code


async def test_a_custom_role_opens_what_it_holds_where_it_is_held_and_closes_at_once(
    identity: Identity, team: Team
) -> None:
    body = {"name": "key-maker", "permissions": ["api_keys:write"]}
    role = await team.admin.ok("POST", f"{team.path}/roles", body)
    made = await team.admin.ok(
        "POST",
        f"{team.path}/role-assignments",
        {"role_id": role["id"], "user_id": team.viewer.user_id, "project_id": team.projects[0]},
    )

    viewer = await again(identity, "viewer")
    assert [await may(viewer, team.keys(0)), await may(viewer, team.keys(1))] == [201, 403]
    [shown] = (await viewer.ok("GET", "/identity/v1/me"))["custom_roles"]
    assert (shown["role_name"], shown["permissions"]) == ("key-maker", ["api_keys:write"])
    in_use = await team.admin.delete(f"{team.path}/roles/{role['id']}")
    assert (in_use.status_code, in_use.json()["code"]) == (409, "role_in_use")

    await team.admin.ok("PATCH", f"{team.path}/roles/{role['id']}", {"permissions": []})
    assert await may(viewer, team.keys(0)) == 401
    viewer = await again(identity, "viewer")
    assert await may(viewer, team.keys(0)) == 403

    await team.admin.ok("DELETE", f"{team.path}/role-assignments/{made['id']}")
    await team.admin.ok("DELETE", f"{team.path}/roles/{role['id']}")
    assert (await team.admin.ok("GET", f"{team.path}/roles"))["data"] == []


async def test_nobody_makes_or_hands_out_a_role_that_holds_more_than_they_do(identity: Identity, team: Team) -> None:
    for permissions, status in ((["orgs:delete"], 403), (["orgs:create"], 422), (["prices:write"], 422), (["x"], 422)):
        answer = await team.admin.post(f"{team.path}/roles", json={"name": "more", "permissions": permissions})
        assert answer.status_code == status, permissions
    for name in ("owner", "Upper", "x" * 70, "a b"):
        answer = await team.admin.post(f"{team.path}/roles", json={"name": name, "permissions": []})
        assert answer.status_code == 422, name

    ends = await team.owner.ok("POST", f"{team.path}/roles", {"name": "ender", "permissions": ["orgs:delete"]})
    body = {"role_id": ends["id"], "user_id": team.admin.user_id}
    assert (await team.admin.post(f"{team.path}/role-assignments", json=body)).status_code == 403
    made = await team.owner.ok("POST", f"{team.path}/role-assignments", body)
    assert (await team.owner.post(f"{team.path}/role-assignments", json=body)).status_code == 409
    viewer_made = await team.owner.ok("POST", f"{team.path}/role-assignments", body | {"user_id": team.viewer.user_id})
    await team.owner.ok("DELETE", f"{team.path}/role-assignments/{made['id']}")
    fresh = await again(identity, "admin")
    taken = await fresh.delete(f"{team.path}/role-assignments/{viewer_made['id']}")
    changed = await fresh.patch(f"{team.path}/roles/{ends['id']}", json={"permissions": ["orgs:read"]})
    assert (taken.status_code, changed.status_code) == (403, 403)


async def test_a_project_role_holds_in_its_project_alone_and_ends_at_once(identity: Identity, team: Team) -> None:
    path = f"/identity/v1/projects/{team.projects[0]}/members/{team.viewer.user_id}"
    put = await team.admin.ok("PUT", path, {"role": "developer"})
    assert (put["email"], put["role"]) == ("viewer@acme.example", "developer")
    assert await team.admin.ok("PUT", path, {"role": "developer"}) == put
    viewer = await again(identity, "viewer")
    assert [await may(viewer, team.keys(0)), await may(viewer, team.keys(1))] == [201, 403]
    listed = await team.admin.ok("GET", f"/identity/v1/projects/{team.projects[0]}/members")
    assert [item["user_id"] for item in listed["data"]] == [team.viewer.user_id]

    await team.admin.ok("DELETE", path)
    assert await may(viewer, team.keys(0)) == 401
    assert (await team.admin.delete(path)).status_code == 404
    assert (await team.admin.put(path, json={"role": "owner"})).status_code == 422
    stranger = f"/identity/v1/projects/{team.projects[0]}/members/{uuid4()}"
    assert (await team.admin.put(stranger, json={"role": "viewer"})).status_code == 422


async def test_an_admin_of_a_project_gives_roles_there_and_nowhere_else(identity: Identity, team: Team) -> None:
    of = [f"/identity/v1/projects/{project}/members" for project in team.projects]
    await team.owner.ok("PUT", f"{of[0]}/{team.viewer.user_id}", {"role": "admin"})
    viewer = await again(identity, "viewer")
    assert (await viewer.put(f"{of[0]}/{team.admin.user_id}", json={"role": "finance"})).status_code == 200
    assert (await viewer.put(f"{of[1]}/{team.admin.user_id}", json={"role": "finance"})).status_code == 403
    assert (await viewer.post(f"{team.path}/roles", json={"name": "mine", "permissions": []})).status_code == 403


async def test_whoever_is_given_a_thousand_roles_in_one_org_can_still_act_in_another(
    identity: Identity, admin: Caller, team: Team, database_url: str
) -> None:
    other = await admin.ok("POST", ORGS, {"name": "other"})
    await admin.ok("POST", f"{ORGS}/{other['id']}/members", {"email": "viewer@acme.example", "role": "owner"})
    every = [f"{permission}" for permission in ROLE_PERMISSIONS[Role.OWNER]]
    for number in range(40):
        values = [uuid4(), team.org_id, f"role-{number}", every]
        insert = "INSERT INTO roles (id, org_id, name, permissions, created_at, updated_at) VALUES"
        await execute(database_url, f"{insert} ($1, $2, $3, $4, now(), now())", *values)
    insert = "INSERT INTO role_assignments (id, org_id, role_id, user_id, project_id, created_at)"
    query = (
        "SELECT gen_random_uuid(), $1, roles.id, $2, projects.id, now() FROM roles, projects WHERE projects.org_id = $1"
    )
    await execute(database_url, f"{insert} {query}", team.org_id, team.viewer.user_id)

    victim = await again(identity, "viewer")

    assert len(victim.headers["authorization"]) < 24_000
    await victim.ok("PATCH", f"{ORGS}/{other['id']}", {"name": "still theirs"})
    await victim.ok("DELETE", f"/identity/v1/me/memberships/{team.org_id}")


async def test_roles_of_another_org_are_absent(identity: Identity, admin: Caller, team: Team) -> None:
    other = await admin.ok("POST", ORGS, {"name": "other"})
    role = await admin.ok("POST", f"{ORGS}/{other['id']}/roles", {"name": "theirs", "permissions": ["orgs:read"]})
    paths = [f"{ORGS}/{other['id']}/roles/{role['id']}", f"{team.path}/roles/{role['id']}"]
    for path in paths:
        for method in ("GET", "PATCH", "DELETE"):
            answer = await team.owner.request(method, path, json={"permissions": []} if method == "PATCH" else None)
            assert answer.status_code == 404, (method, path)
    body = {"role_id": role["id"], "user_id": team.viewer.user_id}
    assert (await team.owner.post(f"{team.path}/role-assignments", json=body)).status_code == 422


async def explain(caller: Caller, team: Team, permission: str, **more: str) -> dict[str, object]:
    answer = await caller.get(
        "/identity/v1/authz/explain", params={"permission": permission, "org_id": team.org_id, **more}
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


async def test_an_explanation_names_the_role_that_allows_or_what_is_missing(
    identity: Identity, admin: Caller, team: Team
) -> None:
    lacking = await explain(team.viewer, team, "api_keys:write", project_id=team.projects[0])
    assert (lacking["allowed"], lacking["missing"]) == (False, "role_lacks_permission")
    assert lacking["would_allow"] == ["owner", "admin", "developer"]
    await team.admin.ok(
        "PUT", f"/identity/v1/projects/{team.projects[0]}/members/{team.viewer.user_id}", {"role": "developer"}
    )
    viewer = await again(identity, "viewer")
    found = await explain(viewer, team, "api_keys:write", project_id=team.projects[0])
    assert (found["allowed"], found["missing"]) == (True, None)
    assert found["granted_by"] == [
        {"org_id": team.org_id, "project_id": team.projects[0], "role": "developer", "name": "developer"}
    ]
    assert (await explain(viewer, team, "api_keys:write", project_id=team.projects[1]))["allowed"] is False
    assert (await explain(viewer, team, "orgs:create"))["missing"] == "platform_permission"
    assert (await explain(admin, team, "orgs:create"))["allowed"] is True
    of_viewer = await explain(team.admin, team, "usage:read", user_id=team.viewer.user_id)
    assert (of_viewer["user_id"], of_viewer["allowed"]) == (team.viewer.user_id, True)


async def test_an_explanation_tells_a_stranger_nothing(identity: Identity, admin: Caller, team: Team) -> None:
    other = await admin.ok("POST", ORGS, {"name": "other"})
    stranger = await identity.member(admin, other["id"], "owner", "stranger@example.com")
    own = await explain(stranger, team, "orgs:read")
    assert (own["allowed"], own["missing"], own["held"]) == (False, "no_role", [])
    query = {"permission": "orgs:read", "user_id": team.viewer.user_id}
    for org_id in (team.org_id, other["id"], str(uuid4())):
        answer = await stranger.get("/identity/v1/authz/explain", params=query | {"org_id": org_id})
        assert answer.status_code == 404

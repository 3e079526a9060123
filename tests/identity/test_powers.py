"""Nobody has power over people who hold more than they do, by whatever kind of role either of them holds it."""

from dataclasses import dataclass

import pytest

from tests.identity.platform import PASSWORD, Caller, Identity

ORGS = "/identity/v1/orgs"


@dataclass
class Office:
    """An org with a clerk, who holds `members:write` by a custom role alone, and somebody to try it on."""

    path: str
    project_id: str
    owner: Caller
    clerk: Caller
    other: Caller

    async def tries(self, caller: Caller) -> list[int]:
        """What the caller is answered who tries all that one can do to a member; nothing of it is committed."""
        member = f"{self.path}/members/{self.other.user_id}"
        answers = [
            await caller.patch(f"{member}?dry_run=true", json={"status": "suspended"}),
            await caller.delete(f"{member}?dry_run=true"),
            await caller.delete(f"{member}/sessions?dry_run=true"),
            await caller.get(f"{member}/sessions"),
        ]
        return [answer.status_code for answer in answers]

    async def give(self, name: str, permissions: list[str], user: Caller, project_id: str | None = None) -> str:
        """A custom role with permissions, given to a user; its id."""
        role = await self.owner.ok("POST", f"{self.path}/roles", {"name": name, "permissions": permissions})
        held = {"role_id": role["id"], "user_id": user.user_id, "project_id": project_id}
        await self.owner.ok("POST", f"{self.path}/role-assignments", held)
        return str(role["id"])


@pytest.fixture
async def office(identity: Identity, admin: Caller) -> Office:
    org = await admin.ok("POST", ORGS, {"name": "acme"})
    owner = await identity.member(admin, org["id"], "owner", "owner@acme.example")
    clerk = await identity.member(admin, org["id"], "viewer", "clerk@acme.example")
    other = await identity.member(admin, org["id"], "viewer", "other@acme.example")
    [project] = (await owner.ok("GET", f"{ORGS}/{org['id']}/projects"))["data"]
    office = Office(f"{ORGS}/{org['id']}", project["id"], owner, clerk, other)
    await office.give("clerk", ["members:write", "budgets:write"], clerk)
    office.clerk = await identity.sign_in("clerk@acme.example", PASSWORD)
    return office


async def test_over_an_equal_there_is_power(office: Office) -> None:
    assert await office.tries(office.clerk) == [200] * 4
    await office.give("budgeter", ["budgets:write"], office.other)
    assert await office.tries(office.clerk) == [200] * 4


async def test_a_custom_role_that_holds_more_protects(office: Office) -> None:
    await office.give("auditor", ["audit:read"], office.other)
    assert await office.tries(office.clerk) == [403] * 4
    assert await office.tries(office.owner) == [200] * 4


async def test_a_role_in_one_project_protects(office: Office) -> None:
    path = f"/identity/v1/projects/{office.project_id}/members/{office.other.user_id}"
    await office.owner.ok("PUT", path, {"role": "developer"})
    assert await office.tries(office.clerk) == [403] * 4
    assert await office.tries(office.owner) == [200] * 4


async def test_what_is_held_in_one_project_alone_is_no_power_over_who_holds_it_everywhere(
    identity: Identity, office: Office
) -> None:
    await office.give("auditor", ["audit:read"], office.other)
    await office.give("local-auditor", ["audit:read"], office.clerk, office.project_id)
    office.clerk = await identity.sign_in("clerk@acme.example", PASSWORD)
    assert await office.tries(office.clerk) == [403] * 4


async def test_whoever_is_suspended_is_not_given_back_by_somebody_who_holds_less(office: Office) -> None:
    await office.give("auditor", ["audit:read"], office.other)
    member = f"{office.path}/members/{office.other.user_id}"
    await office.owner.ok("PATCH", member, {"status": "suspended"})
    assert (await office.clerk.patch(member, json={"status": "active"})).status_code == 403
    assert (await office.clerk.delete(member)).status_code == 403


async def test_no_custom_role_makes_an_equal_of_an_owner(identity: Identity, admin: Caller, office: Office) -> None:
    deputy = await identity.member(admin, office.path.rpartition("/")[2], "admin", "deputy@acme.example")
    await office.give("deputy", ["orgs:delete"], deputy)
    deputy = await identity.sign_in("deputy@acme.example", PASSWORD)
    member = f"{office.path}/members/{office.owner.user_id}"
    for answer in (
        await deputy.patch(member, json={"role": "viewer"}),
        await deputy.delete(member),
        await deputy.delete(f"{member}/sessions"),
        await deputy.patch(f"{office.path}/members/{deputy.user_id}", json={"role": "owner"}),
        await deputy.post(f"{office.path}/invitations", json={"email": "x@acme.example", "role": "owner"}),
        await deputy.patch(office.path, json={"sign_in_domains": ["deputies.example"]}),
    ):
        assert answer.status_code in (403, 422), answer.text


async def test_an_admin_keeps_no_owner_out_by_domains(identity: Identity, admin: Caller, office: Office) -> None:
    org_id = office.path.rpartition("/")[2]
    deputy = await identity.member(admin, org_id, "admin", "deputy@deputies.example")
    refused = await deputy.patch(office.path, json={"sign_in_domains": ["deputies.example"]})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/sign_in_domains")
    both = {"sign_in_domains": ["deputies.example", "acme.example"]}
    assert (await deputy.patch(office.path, json=both)).status_code == 200


async def test_an_admin_keeps_no_owner_out_by_networks(identity: Identity, admin: Caller, office: Office) -> None:
    org_id = office.path.rpartition("/")[2]
    deputy = await identity.member(admin, org_id, "admin", "deputy@acme.example")
    refused = await deputy.patch(office.path, json={"ip_networks": ["127.0.0.1"]})
    assert refused.status_code == 403
    await office.owner.ok("PATCH", office.path, {"ip_networks": ["127.0.0.0/8"]})
    deputy = await identity.sign_in("deputy@acme.example", PASSWORD)
    assert (await deputy.patch(office.path, json={"ip_networks": None})).status_code == 403
    await deputy.ok("PATCH", office.path, {"name": "still theirs to name", "ip_networks": ["127.0.0.0/8"]})


async def test_an_administrator_of_the_platform_is_signed_out_by_no_org(office: Office, admin: Caller) -> None:
    member = f"{office.path}/members/{admin.user_id}"
    assert (await office.owner.get(f"{member}/sessions")).status_code == 403
    assert (await office.owner.delete(f"{member}/sessions")).status_code == 403
    assert (await admin.get("/identity/v1/me")).status_code == 200


async def test_a_role_that_holds_more_is_neither_renamed_nor_removed(office: Office) -> None:
    role = await office.owner.ok("POST", f"{office.path}/roles", {"name": "auditor", "permissions": ["audit:read"]})
    path = f"{office.path}/roles/{role['id']}"
    assert (await office.clerk.patch(path, json={"name": "cleaner"})).status_code == 403
    assert (await office.clerk.delete(path)).status_code == 403
    assert (await office.owner.patch(path, json={"name": "cleaner"})).status_code == 200
    await office.owner.ok("DELETE", path)


async def test_an_invitation_to_more_is_not_withdrawn(office: Office) -> None:
    path = f"{office.path}/invitations"
    made = await office.owner.ok("POST", path, {"email": "x@acme.example", "role": "admin"})
    assert (await office.clerk.delete(f"{path}/{made['id']}")).status_code == 403
    await office.owner.ok("DELETE", f"{path}/{made['id']}")


async def test_what_a_custom_role_holds_may_be_handed_on(identity: Identity, office: Office) -> None:
    """The same measure in giving: a viewer who holds all of `developer` by a custom role makes developers."""
    path = f"{office.path}/invitations"
    body = {"email": "new@acme.example", "role": "developer"}
    assert (await office.clerk.post(path, json=body)).status_code == 403
    await office.give("keys", ["api_keys:write"], office.clerk)
    assert (await office.clerk.post(path, json=body)).status_code == 201

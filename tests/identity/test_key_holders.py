"""A key of one's own opens something only while its user may make keys there, by whatever role."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from ias.contracts.api_keys import KeyRecord
from tests.identity.database import connected, execute
from tests.identity.platform import PASSWORD, Caller, Identity

ReadKey = Callable[[str], Awaitable[KeyRecord]]
EMAIL = "ann@acme.example"


@dataclass
class Shop:
    """An org with two projects, its owner, and Ann, who looks on."""

    identity: Identity
    org: str
    projects: list[str]
    owner: Caller
    ann: Caller
    read_key: ReadKey

    async def make_key(self, project: int = 0) -> str:
        """A key of Ann's own, by what she holds now."""
        self.ann = await self.identity.sign_in(EMAIL, PASSWORD)
        made = await self.ann.ok("POST", f"{self.projects[project]}/api-keys", {"name": "own"})
        return str(made["key"])

    async def status(self, key: str) -> str:
        """What gateways know."""
        return (await self.read_key(key)).status

    @property
    def member(self) -> str:
        return f"{self.org}/members/{self.ann.user_id}"


@pytest.fixture
async def shop(identity: Identity, admin: Caller, read_key: ReadKey) -> Shop:
    org = await admin.ok("POST", "/identity/v1/orgs", {"name": "acme"})
    path = f"/identity/v1/orgs/{org['id']}"
    owner = await identity.member(admin, org["id"], "owner", "owner@acme.example")
    ann = await identity.member(admin, org["id"], "viewer", EMAIL)
    made = [await owner.ok("POST", f"{path}/projects", {"name": name}) for name in ("one", "two")]
    projects = [f"/identity/v1/projects/{project['id']}" for project in made]
    return Shop(identity, path, projects, owner, ann, read_key)


async def test_whose_role_in_the_org_is_taken_has_no_use_of_their_keys_until_it_is_given_back(shop: Shop) -> None:
    await shop.owner.ok("PATCH", shop.member, {"role": "developer"})
    key = await shop.make_key()
    for role, status in (("finance", "suspended"), ("admin", "active"), ("viewer", "suspended")):
        answer = await shop.owner.patch(shop.member, json={"role": role})
        assert answer.headers["x-ias-in-force"] == "true"
        assert await shop.status(key) == status, role


async def test_whose_role_in_a_project_is_taken_has_no_use_of_their_keys_there(shop: Shop) -> None:
    paths = [f"{project}/members/{shop.ann.user_id}" for project in shop.projects]
    for path in paths:
        await shop.owner.ok("PUT", path, {"role": "developer"})
    keys = [await shop.make_key(number) for number in range(2)]
    await shop.owner.ok("DELETE", paths[0])
    assert [await shop.status(key) for key in keys] == ["suspended", "active"]
    await shop.owner.ok("PUT", paths[0], {"role": "admin"})
    answer = await shop.owner.put(paths[1], json={"role": "finance"})
    assert answer.headers["x-ias-in-force"] == "true"
    assert [await shop.status(key) for key in keys] == ["active", "suspended"]


async def test_whose_custom_role_is_taken_or_emptied_has_no_use_of_their_keys(shop: Shop) -> None:
    body: dict[str, Any] = {"name": "key-maker", "permissions": ["api_keys:write"]}
    role = await shop.owner.ok("POST", f"{shop.org}/roles", body)
    path, held = f"{shop.org}/roles/{role['id']}", {"role_id": role["id"], "user_id": shop.ann.user_id}
    project_id = shop.projects[0].rpartition("/")[2]
    assigned = await shop.owner.ok("POST", f"{shop.org}/role-assignments", {**held, "project_id": project_id})
    key = await shop.make_key()
    for permissions, status in (([], "suspended"), (["api_keys:write"], "active")):
        await shop.owner.ok("PATCH", path, {"permissions": permissions})
        assert await shop.status(key) == status
    await shop.owner.ok("DELETE", f"{shop.org}/role-assignments/{assigned['id']}")
    assert await shop.status(key) == "suspended"
    other = shop.projects[1].rpartition("/")[2]
    await shop.owner.ok("POST", f"{shop.org}/role-assignments", {**held, "project_id": other})
    assert await shop.status(key) == "suspended"
    await shop.owner.ok("POST", f"{shop.org}/role-assignments", held)
    assert await shop.status(key) == "active"


async def test_who_administers_the_platform_no_more_has_no_use_of_keys_in_orgs_they_are_not_in(
    shop: Shop, admin: Caller
) -> None:
    user = f"/identity/v1/users/{shop.ann.user_id}"
    await shop.owner.ok("DELETE", shop.member)
    await admin.ok("PATCH", user, {"platform_admin": True})
    key = await shop.make_key()
    await admin.ok("PATCH", user, {"platform_admin": False})
    assert await shop.status(key) == "suspended"


async def test_a_key_of_a_service_account_outlives_what_its_maker_holds(shop: Shop) -> None:
    await shop.owner.ok("PATCH", shop.member, {"role": "developer"})
    await shop.make_key()
    account = await shop.ann.ok("POST", f"{shop.projects[0]}/service-accounts", {"name": "ci"})
    wanted = {"name": "ci", "service_account_id": account["id"]}
    shared = await shop.ann.ok("POST", f"{shop.projects[0]}/api-keys", wanted)
    await shop.owner.ok("DELETE", shop.member)
    assert await shop.status(shared["key"]) == "active"


async def test_a_key_made_while_its_maker_is_put_out_is_not_made(shop: Shop, database_url: str) -> None:
    await shop.owner.ok("PATCH", shop.member, {"role": "developer"})
    await shop.make_key()
    async with connected(database_url) as connection:
        await connection.execute("SET ias.orgs = '*'")
        async with connection.transaction():  # as far as a removal is before it revokes the member's keys
            await connection.execute("DELETE FROM members WHERE user_id = $1", shop.ann.user_id)
            await connection.execute("UPDATE users SET version = version + 1 WHERE id = $1", shop.ann.user_id)
            making = asyncio.create_task(shop.ann.post(f"{shop.projects[0]}/api-keys", json={"name": "late"}))
            done, _ = await asyncio.wait([making], timeout=0.5)
        assert not done
    assert (await making).status_code == 403


async def test_redis_that_lost_everything_learns_the_same(shop: Shop, database_url: str) -> None:
    await shop.owner.ok("PATCH", shop.member, {"role": "developer"})
    key = await shop.make_key()
    await execute(database_url, "UPDATE members SET role = 'viewer' WHERE user_id = $1", shop.ann.user_id)
    await execute(database_url, "UPDATE api_keys SET version = version + 1")
    await shop.identity.app.state.parts.redis_records.push_unpushed()
    assert await shop.status(key) == "suspended"

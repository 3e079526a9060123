"""The second wall: with the application's own check gone, PostgreSQL still keeps one org from another's rows."""

from collections.abc import Callable
from uuid import UUID

import asyncpg
import pytest

from ias.kit.access import Access, OrgScope
from tests.identity.database import connected
from tests.identity.platform import Caller, Identity

ORGS = "/identity/v1/orgs"


@pytest.fixture
async def org(admin: Caller) -> dict[str, str]:
    made: dict[str, str] = await admin.ok("POST", ORGS, {"name": "acme"})
    return made


@pytest.fixture
async def stranger(identity: Identity, admin: Caller) -> Caller:
    other = await admin.ok("POST", ORGS, {"name": "other"})
    return await identity.member(admin, other["id"], "owner", "stranger@example.com")


@pytest.fixture
def no_check(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes the application believe that everybody may act in every org."""

    def drop() -> None:
        def scope(access: Access, org_id: str, project_id: str | None) -> OrgScope:
            return OrgScope(org_id, project_id, access.actor)

        monkeypatch.setattr(Access, "_scope", scope)

    return drop


async def test_without_the_applications_check_nothing_of_another_org_is_read_or_changed(
    admin: Caller, org: dict[str, str], stranger: Caller, no_check: Callable[[], None]
) -> None:
    [project] = (await admin.ok("GET", f"{ORGS}/{org['id']}/projects"))["data"]
    key = await admin.ok("POST", f"/identity/v1/projects/{project['id']}/api-keys", {"name": "theirs"})
    no_check()

    calls = [
        ("GET", f"{ORGS}/{org['id']}", None),
        ("PATCH", f"{ORGS}/{org['id']}", {"name": "mine"}),
        ("GET", f"{ORGS}/{org['id']}/projects", None),
        ("POST", f"{ORGS}/{org['id']}/projects", {"name": "mine"}),
        ("GET", f"{ORGS}/{org['id']}/members", None),
        ("POST", f"{ORGS}/{org['id']}/invitations", {"email": "stranger@example.com", "role": "viewer"}),
        ("GET", f"{ORGS}/{org['id']}/invitations", None),
        ("DELETE", f"{ORGS}/{org['id']}/members/{admin.user_id}", None),
        ("POST", f"{ORGS}/{org['id']}/roles", {"name": "mine", "permissions": []}),
        ("GET", f"{ORGS}/{org['id']}/audit-log", None),
        ("GET", f"/identity/v1/projects/{project['id']}", None),
        ("PATCH", f"/identity/v1/projects/{project['id']}", {"name": "mine"}),
        ("GET", f"/identity/v1/projects/{project['id']}/api-keys", None),
        ("POST", f"/identity/v1/projects/{project['id']}/api-keys", {"name": "mine"}),
        ("GET", f"/identity/v1/api-keys/{key['id']}", None),
        ("DELETE", f"/identity/v1/api-keys/{key['id']}", None),
    ]
    for method, path, body in calls:
        answer = await stranger.request(method, path, json=body)
        assert answer.status_code == 404, (method, path, answer.text)
    assert (await admin.ok("GET", f"/identity/v1/api-keys/{key['id']}"))["status"] == "active"
    assert (await admin.ok("GET", f"{ORGS}/{org['id']}"))["name"] == "acme"


async def test_a_row_of_another_org_can_be_neither_written_nor_moved_there(
    database_url: str, org: dict[str, str], admin: Caller
) -> None:
    other = await admin.ok("POST", ORGS, {"name": "other"})
    async with connected(database_url) as connection:
        await connection.execute("SELECT set_config('ias.orgs', $1, false)", other["id"])
        assert [row["id"] for row in await connection.fetch("SELECT id FROM orgs")] == [UUID(other["id"])]
        assert (
            await connection.execute("UPDATE projects SET name = 'mine' WHERE org_id = $1", UUID(org["id"]))
            == "UPDATE 0"
        )
        assert await connection.execute("DELETE FROM members WHERE org_id = $1", UUID(org["id"])) == "DELETE 0"
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("UPDATE projects SET org_id = $1", UUID(org["id"]))


async def test_a_connection_that_says_no_org_sees_none(database_url: str, org: dict[str, str]) -> None:
    async with connected(database_url) as connection:
        assert not await connection.fetch("SELECT 1 FROM orgs")
        await connection.execute("SELECT set_config('ias.orgs', $1, false)", "*")
        assert await connection.fetch("SELECT 1 FROM orgs WHERE id = $1", UUID(org["id"]))


async def test_an_org_cannot_read_the_platforms_own_audit_entries(database_url: str, org: dict[str, str]) -> None:
    async with connected(database_url) as connection:
        await connection.execute("SELECT set_config('ias.orgs', $1, false)", org["id"])
        seen = {row["org_id"] for row in await connection.fetch("SELECT org_id FROM audit_log")}
    assert seen == {UUID(org["id"])}

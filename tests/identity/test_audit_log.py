"""The audit log: complete, chained, and free of secrets."""

import asyncio
import json
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from ias.contracts.audit_chain import FIRST_HASH, hash_entry
from ias.identity.core.audit_log import render_entry
from ias.identity.store.audit_log import AuditEntry
from tests.identity.database import connected, execute, fetch
from tests.identity.platform import ADMIN_PASSWORD, PASSWORD, Caller, Identity


@pytest.fixture
async def org(identity: Identity, admin: Caller) -> dict[str, Any]:
    """An org with one of each kind of change."""
    org: dict[str, Any] = await admin.ok("POST", "/identity/v1/orgs", {"name": "acme"})
    path = f"/identity/v1/orgs/{org['id']}"
    await admin.ok("PATCH", path, {"status": "suspended", "name": "acme"})
    project = await admin.ok("POST", f"{path}/projects", {"name": "chat"})
    await admin.ok("PATCH", f"/identity/v1/projects/{project['id']}", {"models": ["small"]})
    member = await identity.member(admin, org["id"], "viewer")
    await admin.ok("PATCH", f"{path}/members/{member.user_id}", {"role": "developer"})
    key = await admin.ok("POST", f"/identity/v1/projects/{project['id']}/api-keys", {"name": "key"})
    await admin.ok("DELETE", f"/identity/v1/api-keys/{key['id']}")
    await admin.ok("DELETE", f"{path}/members/{member.user_id}")
    return {**org, "key": key["key"]}


async def test_every_change_is_in_the_log_with_who_did_it_and_what_it_was_before(
    admin: Caller, org: dict[str, Any]
) -> None:
    page = await admin.ok("GET", f"/identity/v1/orgs/{org['id']}/audit-log")

    entries = page["data"][::-1]
    assert [entry["action"] for entry in entries] == [
        "org.create", "project.create", "member.create", "org.update", "project.create", "project.update",
        "member.create", "member.update", "api_key.create", "api_key.revoke", "member.delete",
    ]  # fmt: skip
    assert {(entry["actor_kind"], entry["actor_id"]) for entry in entries} == {("user", admin.user_id)}
    was, became = {"status": "active", "suspended_by": None}, {"status": "suspended", "suspended_by": "platform"}
    assert (entries[3]["before"], entries[3]["after"]) == (was, became)
    assert (entries[7]["before"], entries[7]["after"]) == ({"role": "viewer"}, {"role": "developer"})
    assert all(entry["request_id"] and entry["source_ip"] for entry in entries)


async def test_the_request_id_of_a_change_is_in_its_entry(admin: Caller, org: dict[str, Any]) -> None:
    path = f"/identity/v1/orgs/{org['id']}"
    await admin.patch(path, json={"name": "new name"}, headers={"x-request-id": "req_of_this_test"})
    [newest] = (await admin.ok("GET", f"{path}/audit-log?limit=1"))["data"]
    assert (newest["request_id"], newest["after"]) == ("req_of_this_test", {"name": "new name"})


async def test_a_refused_change_leaves_no_entry(admin: Caller, org: dict[str, Any]) -> None:
    path = f"/identity/v1/orgs/{org['id']}"
    before = (await admin.ok("GET", f"{path}/audit-log?limit=1"))["data"]
    assert (await admin.post(f"{path}/projects", json={"name": "chat"})).status_code == 409
    assert (await admin.delete(f"{path}/members/{admin.user_id}")).status_code == 409
    assert (await admin.ok("GET", f"{path}/audit-log?limit=1"))["data"] == before


async def test_each_chain_holds_from_its_first_entry_on(database_url: str, org: dict[str, Any]) -> None:
    rows = await read_entries(database_url)
    chains = {row["chain_id"] for row in rows}
    assert chains == {str(UUID(int=0)), org["id"]}
    for chain_id in chains:
        check_chain([row for row in rows if row["chain_id"] == chain_id])


async def test_fifty_changes_at_once_in_one_org_and_others_in_another_leave_chains_that_hold(
    admin: Caller, database_url: str
) -> None:
    orgs = [await admin.ok("POST", "/identity/v1/orgs", {"name": f"org {number}"}) for number in range(2)]

    async def create(number: int) -> None:
        org = orgs[0] if number % 5 else orgs[1]
        await admin.ok("POST", f"/identity/v1/orgs/{org['id']}/projects", {"name": f"project {number}"})

    await asyncio.gather(*(create(number) for number in range(50)))
    rows = await read_entries(database_url)
    for org, entries in ((orgs[0], 43), (orgs[1], 13)):
        chain = [row for row in rows if row["chain_id"] == org["id"]]
        assert len(chain) == entries
        check_chain(chain)


async def test_a_change_of_one_org_does_not_wait_for_one_of_another(
    identity: Identity, admin: Caller, database_url: str
) -> None:
    busy, other = [await admin.ok("POST", "/identity/v1/orgs", {"name": name}) for name in ("busy", "other")]
    async with connected(database_url) as connection, connection.transaction():
        await connection.execute("SELECT 1 FROM audit_chains WHERE id = $1 FOR UPDATE", UUID(busy["id"]))
        waiting = asyncio.create_task(admin.patch(f"/identity/v1/orgs/{busy['id']}", json={"name": "renamed"}))
        await admin.ok("PATCH", f"/identity/v1/orgs/{other['id']}", {"name": "renamed"})
        assert not waiting.done()
    assert (await waiting).is_success


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET action = 'nothing.happen'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log CASCADE",
        "DELETE FROM audit_chains",
        "UPDATE audit_checkpoints SET signed = ''",
        "UPDATE audit_chains SET sequence = sequence - 1",
    ],
)
async def test_the_database_refuses_to_rewrite_the_log(
    identity: Identity, org: dict[str, Any], database_url: str, statement: str
) -> None:
    await identity.app.state.parts.audit_checkpoints.sign_grown()
    with pytest.raises(asyncpg.RaiseError, match=r"append-only|only grows"):
        await execute(database_url, statement)


async def test_the_log_is_filtered_by_anything(admin: Caller, org: dict[str, Any]) -> None:
    path = f"/identity/v1/orgs/{org['id']}/audit-log"
    entries = (await admin.ok("GET", path))["data"]
    chosen = entries[3]
    for name in ("service", "actor_kind", "actor_id", "action", "target_kind", "target_id", "request_id", "source_ip"):
        found = (await admin.get(path, params={name: chosen[name]})).json()["data"]
        assert found == [entry for entry in entries if entry[name] == chosen[name]], name
    since = (await admin.get(path, params={"start": chosen["occurred_at"], "outcome": "done"})).json()["data"]
    assert chosen in since
    assert (await admin.get(path, params={"end": entries[-1]["occurred_at"][:19] + "Z"})).json()["data"] == []
    assert (await admin.get(path, params={"outcome": "denied"})).json()["data"] == []
    assert (await admin.get(path, params={"outcome": "maybe"})).status_code == 422


async def test_a_page_is_continued_with_its_own_filters_alone(admin: Caller, org: dict[str, Any]) -> None:
    path = f"/identity/v1/orgs/{org['id']}/audit-log"
    first = (await admin.get(path, params={"limit": 1, "action": "project.create"})).json()
    more = {"limit": 1, "cursor": first["next_cursor"]}
    second = (await admin.get(path, params={**more, "action": "project.create"})).json()
    assert [entry["action"] for entry in first["data"] + second["data"]] == ["project.create"] * 2
    assert (await admin.get(path, params=more)).status_code == 400


async def test_the_log_holds_no_secret(admin: Caller, database_url: str, org: dict[str, Any]) -> None:
    log = str(await read_entries(database_url))
    for secret in (org["key"], PASSWORD, ADMIN_PASSWORD, "$2b$", admin.headers["authorization"][7:]):
        assert secret not in log


async def read_entries(database_url: str) -> list[dict[str, Any]]:
    """Every entry as the JSON that its hash was made of."""
    names = list(AuditEntry.__dataclass_fields__)
    rows = await fetch(database_url, f"SELECT {', '.join(names)} FROM audit_log ORDER BY chain_id, sequence")  # noqa: S608
    for_json = [
        {**row, **{name: json.loads(row[name]) if row[name] else None for name in ("before", "after")}}
        for row in map(dict, rows)
    ]
    return [render_entry(AuditEntry(**row)) for row in for_json]


def check_chain(chain: list[dict[str, Any]]) -> None:
    previous = FIRST_HASH
    for number, entry in enumerate(chain, start=1):
        assert (entry["sequence"], entry["previous_hash"]) == (number, previous)
        assert hash_entry(entry) == entry["hash"]
        previous = entry["hash"]

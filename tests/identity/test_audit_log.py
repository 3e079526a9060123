"""The audit log: complete, chained, and free of secrets."""

import json
from typing import Any

import pytest

from ias.identity.core.audit_log import FIRST_HASH, hash_entry
from tests.identity.database import fetch
from tests.identity.platform import PASSWORD, Caller, Identity

FIELDS = (
    "id", "chain_id", "org_id", "sequence", "occurred_at", "actor_kind", "actor_id", "action", "target_kind", "target_id",
    "before", "after", "request_id", "source_ip", "previous_hash", "hash",
)  # fmt: skip


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
    assert (entries[3]["before"], entries[3]["after"]) == ({"status": "active"}, {"status": "suspended"})
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


async def test_each_chain_holds_and_a_changed_entry_breaks_it(database_url: str, org: dict[str, Any]) -> None:
    rows = await read_entries(database_url)
    assert len({row["chain_id"] for row in rows}) == 2
    for chain_id in {row["chain_id"] for row in rows}:
        previous = FIRST_HASH
        chain = [row for row in rows if row["chain_id"] == chain_id]
        for number, entry in enumerate(chain, start=1):
            assert (entry["sequence"], entry["previous_hash"]) == (number, previous)
            assert hash_entry(entry) == entry["hash"]
            assert hash_entry({**entry, "action": "org.delete"}) != entry["hash"]
            previous = entry["hash"]


async def test_the_log_holds_no_secret(database_url: str, org: dict[str, Any]) -> None:
    log = str(await read_entries(database_url))
    for secret in (org["key"], PASSWORD, "$2b$", "password"):
        assert secret not in log


async def read_entries(database_url: str) -> list[dict[str, Any]]:
    rows = await fetch(database_url, f"SELECT {', '.join(FIELDS)} FROM audit_log ORDER BY chain_id, sequence")  # noqa: S608
    return [
        {**row, **{name: json.loads(row[name]) if row[name] else None for name in ("before", "after")}}
        for row in map(dict, rows)
    ]

"""Exports: complete, provable without the platform, and of no harm to a spreadsheet."""

import asyncio
import csv
import io
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from sqlalchemy import update

from ias.cli.audit import audit
from ias.identity.store.tables import signing_keys
from tests.gitops.conftest import serving
from tests.identity.database import execute
from tests.identity.platform import Caller, Identity


@pytest.fixture
async def org_id(admin: Caller) -> str:
    org = await admin.ok("POST", "/identity/v1/orgs", {"name": "acme"})
    for name in ("=cmd|'/C calc'!A0", "@SUM(1)", "ä\nb"):
        await admin.ok("POST", f"/identity/v1/orgs/{org['id']}/projects", {"name": name.replace("\n", " ")})
    return str(org["id"])


async def verify(tmp_path: Path, text: str, keys: Any, *options: str) -> Any:
    (tmp_path / "log.ndjson").write_text(text)
    (tmp_path / "jwks.json").write_text(json.dumps(keys))
    arguments = ["verify", str(tmp_path / "log.ndjson"), "--jwks", str(tmp_path / "jwks.json"), *options]
    return await asyncio.to_thread(CliRunner().invoke, audit, arguments)


async def test_an_export_of_an_org_and_of_the_platform_is_proved_with_the_published_keys(
    admin: Caller, org_id: str, tmp_path: Path
) -> None:
    keys = await admin.ok("GET", "/identity/v1/.well-known/audit-jwks.json")
    for path in (f"/identity/v1/orgs/{org_id}/audit-log/export", "/identity/v1/audit-log/export"):
        answer = await admin.get(path)
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        result = await verify(tmp_path, answer.text, keys)
        assert result.exit_code == 0, result.output
        last = json.loads(answer.text.splitlines()[-1])["entry"]
        assert (last["action"], last["actor_id"]) == ("audit_log.export", admin.user_id)


async def test_what_somebody_changed_in_the_database_is_found(
    admin: Caller, org_id: str, database_url: str, tmp_path: Path
) -> None:
    """By somebody who may even take the triggers off."""
    path = f"/identity/v1/orgs/{org_id}/audit-log/export"
    keys = await admin.ok("GET", "/identity/v1/.well-known/audit-jwks.json")
    earlier = tmp_path / "earlier.ndjson"
    earlier.write_text((await admin.get(path)).text)
    await execute(database_url, "ALTER TABLE audit_log DISABLE TRIGGER USER")
    await execute(database_url, "UPDATE audit_log SET after = '{}' WHERE chain_id = $1 AND sequence = 4", org_id)
    result = await verify(tmp_path, (await admin.get(path)).text, keys)
    assert (result.exit_code, "entry 4 does not fit its hash" in result.output) == (1, True)


async def test_a_log_cut_off_and_continued_in_the_database_is_found(
    admin: Caller, org_id: str, database_url: str, tmp_path: Path
) -> None:
    path = f"/identity/v1/orgs/{org_id}/audit-log/export"
    keys = await admin.ok("GET", "/identity/v1/.well-known/audit-jwks.json")
    earlier = tmp_path / "earlier.ndjson"
    earlier.write_text((await admin.get(path)).text)
    for table in ("audit_log", "audit_chains", "audit_checkpoints"):
        await execute(database_url, f"ALTER TABLE {table} DISABLE TRIGGER USER")
    await execute(database_url, "DELETE FROM audit_checkpoints")
    await execute(database_url, "DELETE FROM audit_log WHERE chain_id = $1 AND sequence > 4", org_id)
    await execute(
        database_url,
        "UPDATE audit_chains SET (sequence, hash) = (SELECT sequence, hash FROM audit_log"
        " WHERE chain_id = $1 AND sequence = 4) WHERE id = $1",
        org_id,
    )
    text = (await admin.get(path)).text
    assert (await verify(tmp_path, text, keys)).exit_code == 0
    result = await verify(tmp_path, text, keys, "--earlier", str(earlier))
    assert result.exit_code == 1, result.output


async def test_checkpoints_of_a_key_that_was_retired_long_ago_still_hold(
    identity: Identity, admin: Caller, org_id: str, tmp_path: Path
) -> None:
    parts = identity.app.state.parts
    while await parts.audit_checkpoints.sign_grown():
        pass
    path = f"/identity/v1/orgs/{org_id}/audit-log/export"
    text = (await admin.get(path)).text
    await parts.signing_keys.rotate()
    async with parts.signing_keys._database.transaction() as connection:
        old = signing_keys.c.retired_at.is_not(None)
        await connection.execute(
            update(signing_keys).where(old).values(retired_at=signing_keys.c.retired_at - timedelta(days=90))
        )
    keys = await admin.ok("GET", "/identity/v1/.well-known/audit-jwks.json")
    current = await admin.ok("GET", "/identity/v1/.well-known/jwks.json")
    assert (len(keys["keys"]), len(current["keys"])) == (2, 1)
    assert (await verify(tmp_path, text, keys)).exit_code == 0
    assert (await verify(tmp_path, text, current)).exit_code == 1


async def test_a_checkpoint_is_no_access_token(identity: Identity, admin: Caller, org_id: str) -> None:
    first = (await admin.get(f"/identity/v1/orgs/{org_id}/audit-log/export")).text.splitlines()[0]
    nobody = await identity.anonymous()
    token = json.loads(first)["checkpoint"]
    assert (await nobody.get("/identity/v1/me", headers={"authorization": f"Bearer {token}"})).status_code == 401


async def test_a_filtered_export_holds_what_the_filter_says(admin: Caller, org_id: str, tmp_path: Path) -> None:
    path = f"/identity/v1/orgs/{org_id}/audit-log/export"
    text = (await admin.get(path, params={"action": "project.create"})).text
    entries = [json.loads(line)["entry"] for line in text.splitlines() if line.startswith('{"entry"')]
    assert [entry["action"] for entry in entries] == ["project.create"] * 4
    keys = await admin.ok("GET", "/identity/v1/.well-known/audit-jwks.json")
    assert (await verify(tmp_path, text, keys)).exit_code == 1
    assert (await verify(tmp_path, text, keys, "--partial")).exit_code == 0


async def test_no_cell_of_a_csv_is_a_formula(identity: Identity, admin: Caller, org_id: str) -> None:
    agent = {"user-agent": "=HYPERLINK(A1)"}
    await admin.patch(f"/identity/v1/orgs/{org_id}", json={"name": "new"}, headers=agent)
    answer = await admin.get(f"/identity/v1/orgs/{org_id}/audit-log/export", params={"format": "csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["action"] for row in rows][-2:] == ["org.update", "audit_log.export"]
    assert rows[-2]["user_agent"] == "'=HYPERLINK(A1)"
    assert not [cell for row in rows for cell in row.values() if cell.startswith(("=", "+", "-", "@"))]


async def test_an_export_is_for_those_who_may_read_the_log(identity: Identity, admin: Caller, org_id: str) -> None:
    viewer = await identity.member(admin, org_id, "viewer")
    other = await admin.ok("POST", "/identity/v1/orgs", {"name": "other"})
    owner = await identity.member(admin, other["id"], "owner")
    path = f"/identity/v1/orgs/{org_id}/audit-log/export"
    assert [(await caller.get(path)).status_code for caller in (viewer, owner)] == [403, 404]
    assert (await owner.get("/identity/v1/audit-log/export")).status_code == 403
    assert (await owner.get("/identity/v1/audit-log")).status_code == 403


async def test_the_command_exports_what_the_command_proves(
    identity: Identity, admin: Caller, org_id: str, tmp_path: Path
) -> None:
    async with serving(identity.app, lifespan="off") as url:
        target, token = tmp_path / "log.ndjson", tmp_path / "token"
        token.write_text(admin.headers["authorization"][len("Bearer ") :])
        export = ["export", "--org", org_id, "--url", url, "--token-file", str(token), "-o", str(target)]
        result = await asyncio.to_thread(CliRunner().invoke, audit, export)
        assert result.exit_code == 0, result.output
        proof = ["verify", str(target), "--jwks", f"{url}/identity/v1/.well-known/audit-jwks.json"]
        result = await asyncio.to_thread(CliRunner().invoke, audit, proof)
        assert result.exit_code == 0, result.output
        wrong = [*export[:2], org_id[:-1] + "x", *export[3:]]
        result = await asyncio.to_thread(CliRunner().invoke, audit, wrong)
        assert (result.exit_code, target.exists()) == (1, False)
        async with httpx.AsyncClient(base_url=url) as client:
            assert (await client.get("/health")).is_success

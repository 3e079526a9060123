"""Statements: a period's charges as CSV, whose sums are the ledger's, in the org's own days, safe to open in a spreadsheet."""

import asyncio
import csv
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from click.testing import CliRunner

from ias.cli.statements import statements
from ias.contracts.permissions import Role
from ias.kit.database import Database
from tests.billing.conftest import RunningBilling, client_of, served
from tests.billing.test_adjustments import book, correct, credit
from tests.billing.usage import PROJECT_ID, id_at, make_record
from tests.kit.token_issuer import TokenIssuer

URL = "/billing/v1/statements/export"
MODEL_OF_A_JOKER = "=cmd|'/C calc'!A0"


async def read(billing: httpx.AsyncClient, org_id: str, **parameters: Any) -> list[dict[str, str]]:
    now = datetime.now(UTC)
    period = {} if "month" in parameters else {"start": now - timedelta(days=1), "end": now + timedelta(days=1)}
    told = {"org_id": org_id, **{name: at.isoformat() for name, at in period.items()}, **parameters}
    answer = await billing.get(URL, params=told)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/csv")
    return list(csv.DictReader(io.StringIO(answer.text)))


async def test_lines_are_summed_as_asked_and_make_up_the_ledger(
    billing: httpx.AsyncClient, database: Database, org_id: str
) -> None:
    records = [make_record(org_id) for _ in range(3)]
    others = [make_record(org_id, model=MODEL_OF_A_JOKER), make_record(str(uuid4()))]
    await book(database, *records, *others)
    assert (await correct(billing, org_id, records[0].request_id, "0.0005")).status_code == 201
    assert (await credit(billing, org_id, "0.001")).status_code == 201
    lines = await read(billing, org_id)
    assert [(line["project_id"], line["model"], line["requests"], line["total_usd"]) for line in lines] == [
        ("", "", "0", "-0.001"),
        (PROJECT_ID, "'" + MODEL_OF_A_JOKER, "1", "0.002"),
        (PROJECT_ID, "tiny", "3", "0.0045"),
    ]
    assert lines[2] == lines[2] | {
        "input_tokens": "3000",
        "cached_input_tokens": "600",
        "output_tokens": "1500",
        "usage_usd": "0.006",
        "corrections_usd": "-0.0015",
        "credits_usd": "0.00",
    }
    [total] = await read(billing, org_id, by="")
    assert (total["requests"], total["total_usd"]) == ("4", "0.0055")
    entries = await read(billing, org_id, by="entry")
    assert len(entries) == 6
    assert {entry["kind"]: entry["reason"] for entry in entries} == {
        "usage": "",
        "correction": "The engine was wrong.",
        "credit": "Welcome.",
    }
    assert {entry["cost_usd"] for entry in entries} == {"0.002", "-0.0015", "-0.001"}


async def test_days_and_months_are_those_of_the_orgs_time_zone(
    billing: httpx.AsyncClient, database: Database, org_id: str
) -> None:
    settings = f"/billing/v1/orgs/{org_id}/spending-settings"
    assert (await billing.patch(settings, json={"time_zone": "Asia/Kolkata"})).status_code == 200
    moments = ("2026-01-31T18:29:59Z", "2026-01-31T18:30:00Z", "2026-02-28T18:29:59Z", "2026-02-28T18:30:00Z")
    await book(database, *(make_record(org_id, id=id_at(datetime.fromisoformat(moment))) for moment in moments))
    lines = await read(billing, org_id, month="2026-02", by="day,model")
    assert [(line["day"], line["requests"]) for line in lines] == [("2026-02-01", "1"), ("2026-02-28", "1")]
    [total] = await read(billing, org_id, month="2026-01", by="")
    assert total["requests"] == "1"
    assert await read(billing, org_id, month="2025-01", by="") == []


async def test_a_period_that_is_none_is_refused(billing: httpx.AsyncClient, org_id: str) -> None:
    for wrong in (
        {},
        {"month": "2026-13"},
        {"month": "2026-11", "start": "2026-01-01T00:00:00Z"},
        {"start": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z"},
        {"start": "2020-01-01T00:00:00Z", "end": "2026-01-01T00:00:00Z"},
        {"month": "2026-11", "by": "entry,day"},
    ):
        answer = await billing.get(URL, params={"org_id": org_id, **wrong})
        assert answer.status_code == 422, wrong


async def test_a_statement_is_for_those_who_may_read_the_ledger_and_comes_by_the_command_too(
    run_billing: RunningBilling, issuer: TokenIssuer, database: Database, org_id: str, tmp_path: Path
) -> None:
    await book(database, make_record(org_id))
    async with run_billing() as app, served(app) as url:
        for org, role, status in (
            (org_id, Role.DEVELOPER, 403),
            (str(uuid4()), Role.OWNER, 404),
            (org_id, Role.FINANCE, 200),
        ):
            async with client_of(app, issuer.member(org, role)) as member:
                answer = await member.get(URL, params={"org_id": org_id, "month": f"{datetime.now(UTC):%Y-%m}"})
                assert answer.status_code == status
        token = issuer.member(org_id, Role.FINANCE)["Authorization"].removeprefix("Bearer ")
        file, month = tmp_path / "statement.csv", f"{datetime.now(UTC):%Y-%m}"
        arguments = ["export", "--org", org_id, "--month", month, "--by", "model", "-o", str(file), "--url", url]
        done = await asyncio.to_thread(CliRunner().invoke, statements, arguments, env={"IAS_TOKEN": token})
        assert done.exit_code == 0, done.output
        assert file.read_text().splitlines()[1].startswith("tiny,1,1000,200,500,0.002")
        arguments[4] = "2026-13"
        refused = await asyncio.to_thread(CliRunner().invoke, statements, arguments, env={"IAS_TOKEN": token})
        assert (refused.exit_code, file.exists()) == (1, False)

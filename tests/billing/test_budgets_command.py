"""`ias budgets`: made, shown, changed, raised and taken away, and refused in one line where it makes no sense."""

import asyncio
from datetime import UTC, datetime, timedelta

from click.testing import CliRunner, Result

from ias.cli.budgets import budgets
from tests.billing.conftest import RunningBilling, served
from tests.kit.token_issuer import TokenIssuer


async def run(url: str, token: str, *arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, budgets, [*arguments, "--url", url], env={"IAS_TOKEN": token})


def told(result: Result) -> list[str]:
    """The lines of the command, without those that the server under test logs meanwhile."""
    return [line for line in result.output.splitlines() if not line.startswith("\x1b")]


async def test_a_budget_from_its_making_to_its_end(
    run_billing: RunningBilling, issuer: TokenIssuer, org_id: str
) -> None:
    token = issuer.platform_admin()["Authorization"].removeprefix("Bearer ")
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    async with run_billing() as app, served(app) as url:
        wanted = (
            "create",
            "--org",
            org_id,
            "--window",
            "rolling_7d",
            "--limit-usd",
            "10",
            "--mode",
            "hard",
            "--at-limit",
            "require_override",
        )
        tried = await run(url, token, *wanted, "--dry-run")
        assert told(tried) == ["it can be made; nothing was changed"]
        [budget_id] = told(await run(url, token, *wanted, "--alert-percent", "80"))
        listed = await run(url, token, "list", "--org", org_id)
        assert told(listed) == [f"{budget_id}  rolling_7d   hard   0.00 + 0.00 of 10.00  org={org_id}"]
        changed = await run(url, token, "update", budget_id, "--limit-usd", "20")
        assert told(changed)[0] == 'limit_usd: "10.00" → "20.00"', changed.output
        how = ("--amount-usd", "5", "--reason", "A launch.")
        assert "of 25.00" in (await run(url, token, "raise", budget_id, *how, "--until", tomorrow)).output
        assert "of 30.00" in (await run(url, token, "raise", budget_id, *how)).output
        assert (await run(url, token, "delete", budget_id)).exit_code == 0
        assert told(await run(url, token, "list", "--org", org_id)) == []


async def test_what_makes_no_sense_is_told_in_a_line(
    run_billing: RunningBilling, issuer: TokenIssuer, org_id: str
) -> None:
    token = issuer.platform_admin()["Authorization"].removeprefix("Bearer ")
    async with run_billing() as app, served(app) as url:
        made = ("create", "--org", org_id, "--window", "rolling_24h")
        for arguments, said in (
            (("update", org_id), "nothing to change was given"),
            ((*made, "--limit-usd", "1"), "a budget needs --limit-usd and --mode"),
            ((*made, "--limit-usd", "1", "--mode", "hard", "--scope", "team=a"), "--scope is KIND=ID"),
            ((*made, "--limit-usd", "1", "--mode", "hard", "--time-zone", "UTC"), "A rolling window has none."),
            (("raise", org_id, "--amount-usd", "1", "--until", "2030-01-01T00:00:00Z", "--reason", "x"), "404"),
        ):
            result = await run(url, token, *arguments)
            assert result.exit_code != 0
            assert said in (result.output + str(result.exception)), (arguments, result.output)

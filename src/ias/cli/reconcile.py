"""`ias reconcile`: are all books one?"""

import importlib
import json
import os
from typing import IO, Any

import click

from ias.cli.failures import UNAVAILABLE, CommandError

_TIMEOUT_S = 300.0


@click.command()
@click.option("--url", envvar="IAS_BILLING_URL", default="http://127.0.0.1:8080", show_default=True, help="Billing.")
@click.option(
    "--token-file", type=click.File("r"), help="File with a platform admin's token.  [default: the variable IAS_TOKEN]"
)
@click.option(
    "--hours", type=click.IntRange(1, 24 * 62), default=24, show_default=True, help="How far back to compare."
)
@click.option("--repair", is_flag=True, help="Let Redis' counters that differ say what the ledger says.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole answer as JSON.")
@click.pass_context
def reconcile(
    ctx: click.Context, *, url: str, token_file: IO[str] | None, hours: int, repair: bool, as_json: bool
) -> None:
    """Hold the ledger against its balances, analytics' records and rollups, Redis' counters, and engines' own counts.

    Exit codes: 0 all are one; 1 they differ; 2 wrong usage; 3 something could not be compared.
    """
    token = (token_file.read() if token_file else os.environ.get("IAS_TOKEN", "")).strip()
    if not token:
        raise CommandError("an access token is needed", advice="set IAS_TOKEN or give --token-file")
    run = _ask(f"{url.rstrip('/')}/billing/v1/reconciliations", {"hours": hours, "repair": repair}, token)
    if as_json:
        click.echo(json.dumps(run, indent=2))
    else:
        _tell(run)
    if run["differences"]:
        ctx.exit(1)
    if run["skipped"]:
        ctx.exit(UNAVAILABLE)


def _ask(url: str, body: dict[str, Any], token: str) -> Any:
    httpx = importlib.import_module("httpx")
    try:
        answer = httpx.post(url, json=body, headers={"Authorization": f"Bearer {token}"}, timeout=_TIMEOUT_S)
        if answer.status_code != 201:
            raise CommandError(f"{url} answered {answer.status_code}: {_detail(answer)}")
        return answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise CommandError(f"{url} gave no whole answer ({type(error).__name__})", exit_code=UNAVAILABLE) from error


def _detail(answer: Any) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return str(answer.text[:200])


def _tell(run: Any) -> None:
    for difference in run["differences"]:
        figures = ", ".join(
            f"{name} {difference['expected'].get(name, 0)} ≠ {difference['found'].get(name, 0)}"
            for name in sorted({*difference["expected"], *difference["found"]})
            if difference["expected"].get(name, 0) != difference["found"].get(name, 0)
        )
        repaired = ", repaired" if difference["repaired"] else ""
        whose = f"org {difference['org_id']}, " if difference["org_id"] else ""
        click.echo(f"{difference['check']}: {whose}{difference['subject']}: {figures}{repaired}")
        for kind in ("missing", "unknown"):
            for request_id in difference[kind]:
                click.echo(f"  {kind} {request_id}")
    for skipped in run["skipped"]:
        click.echo(f"not compared: {skipped}")
    if not run["differences"]:
        click.echo(f"no differences from {run['start']} to {run['end']}")

"""`ias budgets`: what an org may spend, what it has spent, and more room for a while."""

from typing import IO, Any, get_args

import click

from ias.cli.failures import CommandError
from ias.cli.management_api import ManagementApi, management_options
from ias.cli.models import sent, tell
from ias.contracts.spending import AtLimit, Mode, ScopeKind, Window

BUDGETS = "/billing/v1/budgets"

_dry_run = click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
_connected = management_options("billing")
_limit = click.option("--limit-usd", metavar="USD", help='A decimal string such as "250.00".')
_mode = click.option(
    "--mode",
    type=click.Choice(get_args(Mode)),
    help="hard: refuse what might exceed it; soft: refuse once it is spent; alert: refuse nothing.",
)
_at_limit = click.option(
    "--at-limit",
    type=click.Choice(get_args(AtLimit)),
    help="block: what is refused waits; require_override: somebody may raise the budget for a while.",
)
_alerts = click.option(
    "--alert-percent",
    "alert_percents",
    multiple=True,
    type=click.IntRange(1, 1000),
    help="Tell somebody at this share.",
)


@click.group()
def budgets() -> None:
    """Budgets of orgs, for those who may see or change them."""


@budgets.command("list")
@click.option("--org", required=True, metavar="ID", help="The org.")
@_connected
def list_budgets(org: str, url: str, token_file: IO[str] | None) -> None:
    """List budgets: id, window, mode, spent, reserved and limit in USD, scope."""
    for budget in ManagementApi(url, token_file).list(BUDGETS, {"org_id": org}):
        click.echo(_line(budget))


@budgets.command()
@click.option("--org", required=True, metavar="ID", help="The org.")
@click.option(
    "--scope",
    metavar="KIND=ID",
    help=f"Whose spending: {', '.join(get_args(ScopeKind))}, and its id (a model's name).  [default: the org's]",
)
@click.option("--window", required=True, type=click.Choice(get_args(Window)), help="What of its spending counts.")
@click.option("--time-zone", metavar="NAME", help="Of a day, week or month, e.g. Europe/Berlin.  [default: the org's]")
@_limit
@_mode
@_at_limit
@_alerts
@_dry_run
@_connected
def create(
    *, org: str, scope: str | None, window: str, dry_run: bool, url: str, token_file: IO[str] | None, **fields: Any
) -> None:
    """Bound what may be spent. What was spent in the window already counts."""
    kind, _, scope_id = scope.partition("=") if scope else ("org", "=", org)
    if kind not in get_args(ScopeKind) or not scope_id:
        raise click.UsageError(f"--scope is KIND=ID, and KIND is one of {', '.join(get_args(ScopeKind))}")
    if fields["limit_usd"] is None or fields["mode"] is None:
        raise click.UsageError("a budget needs --limit-usd and --mode")
    body = {"org_id": org, "scope": {"kind": kind, "id": scope_id}, "window": window, **sent(fields)}
    told = ManagementApi(url, token_file).post(BUDGETS, body, dry_run=dry_run)
    click.echo("it can be made; nothing was changed" if dry_run else told["id"])


@budgets.command()
@click.argument("budget_id")
@_limit
@_mode
@_at_limit
@_alerts
@_dry_run
@_connected
def update(budget_id: str, *, dry_run: bool, url: str, token_file: IO[str] | None, **fields: Any) -> None:
    """Change what is given of a budget. Its scope, window and time zone stay."""
    changed = sent(fields)
    if not changed:
        raise click.UsageError("nothing to change was given")
    api = ManagementApi(url, token_file)
    before = api.get(f"{BUDGETS}/{budget_id}")
    tell(before, api.patch(f"{BUDGETS}/{budget_id}", changed, dry_run=dry_run), dry_run=dry_run)


@budgets.command()
@click.argument("budget_id")
@_dry_run
@_connected
def delete(budget_id: str, *, dry_run: bool, url: str, token_file: IO[str] | None) -> None:
    """Stop enforcing a budget."""
    ManagementApi(url, token_file).delete(f"{BUDGETS}/{budget_id}", dry_run=dry_run)
    if dry_run:
        click.echo("it can be taken away; nothing was changed")


@budgets.command("raise")
@click.argument("budget_id")
@click.option("--amount-usd", required=True, metavar="USD", help="On top of the limit.")
@click.option("--until", metavar="TIME", help="When it ends, e.g. 2026-12-01T00:00:00Z.  [default: the window's end]")
@click.option("--reason", required=True, help="Why, for whoever reads the audit log.")
@_dry_run
@_connected
def raise_budget(
    budget_id: str,
    *,
    amount_usd: str,
    until: str | None,
    reason: str,
    dry_run: bool,
    url: str,
    token_file: IO[str] | None,
) -> None:
    """Let a budget that may be overridden bear more until a moment. The raise ends by itself."""
    api = ManagementApi(url, token_file)
    path = f"{BUDGETS}/{budget_id}"
    api.post(f"{path}/raises", {"amount_usd": amount_usd, "expires_at": until, "reason": reason}, dry_run=dry_run)
    click.echo("it can be raised; nothing was changed" if dry_run else _line(api.get(path)))


def _line(budget: dict[str, Any]) -> str:
    try:
        scope = f"{budget['scope']['kind']}={budget['scope']['id']}"
        spent, reserved = (budget[name] if budget[name] is not None else "?" for name in ("spent_usd", "reserved_usd"))
        limit = budget["raised_limit_usd"]
        return f"{budget['id']}  {budget['window']:<11}  {budget['mode']:<5}  {spent} + {reserved} of {limit}  {scope}"
    except (KeyError, TypeError) as error:
        raise CommandError("billing's answer cannot be understood") from error

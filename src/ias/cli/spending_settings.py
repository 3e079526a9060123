"""`ias spending-settings`: what is agreed of an org's spending in general."""

import json
from typing import IO, Any

import click

from ias.cli.management_api import ManagementApi, management_options
from ias.cli.models import sent, tell


@click.command("spending-settings")
@click.option("--org", required=True, metavar="ID", help="The org.")
@click.option("--time-zone", metavar="NAME", help="Of budgets that are made without one, e.g. Europe/Berlin.")
@click.option("--unpriced", type=click.Choice(["refuse", "allow"]), help="What becomes of requests without a price.")
@click.option("--unguarded-usd", metavar="AMOUNT", help="What each gateway worker lets through while Redis is away.")
@click.option("--queue-weight", type=click.IntRange(1), help="Its share where servers are full; 100 is usual.")
@click.option(
    "--clear",
    multiple=True,
    type=click.Choice(["unpriced", "unguarded_usd", "queue_weight"]),
    help="Take back what was said of this.",
)
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@management_options("billing")
def spending_settings(
    *, org: str, clear: tuple[str, ...], dry_run: bool, url: str, token_file: IO[str] | None, **fields: Any
) -> None:
    """Change what is given of an org's spending settings; given nothing, show them."""
    api = ManagementApi(url, token_file)
    path = f"/billing/v1/orgs/{org}/spending-settings"
    settings = api.get(path)
    changed = {**sent(fields), **dict.fromkeys(clear)}
    if not changed:
        click.echo(json.dumps(settings, indent=2))
        return
    tell(settings, api.patch(path, changed, dry_run=dry_run), dry_run=dry_run)

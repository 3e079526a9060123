"""`ias statements`: what an org was charged, as CSV."""

from pathlib import Path
from typing import IO

import click

from ias.cli.management_api import ManagementApi, management_options
from ias.cli.output_files import open_output


@click.group()
def statements() -> None:
    """What an org was charged."""


@statements.command()
@click.option("--org", required=True, metavar="ID", help="The org.")
@click.option("--month", metavar="YYYY-MM", help="A month of the org's time zone; or --start and --end.")
@click.option("--start", metavar="TIME", help="From then on, e.g. 2026-11-01T00:00:00Z.")
@click.option("--end", metavar="TIME", help="Before then.")
@click.option(
    "--by",
    multiple=True,
    type=click.Choice(["project", "api_key", "model", "day", "entry"]),
    help="What a line is for, repeatable.  [default: project and model]",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write.  [default: stdout]")
@management_options("billing")
def export(
    *,
    org: str,
    month: str | None,
    start: str | None,
    end: str | None,
    by: tuple[str, ...],
    output: Path | None,
    url: str,
    token_file: IO[str] | None,
) -> None:
    """Write a period's statement as CSV. A file that could not be completed is removed again."""
    told = {"org_id": org, "month": month, "start": start, "end": end, "by": ",".join(by) or None}
    parameters = {name: value for name, value in told.items() if value is not None}
    api = ManagementApi(url, token_file)
    with open_output(output) as target:
        for part in api.stream("/billing/v1/statements/export", parameters):
            target.write(part)

"""`ias prices`: a catalogue of prices from a file, and a period at the prices that are known by now."""

import csv
import importlib
import io
import json
from pathlib import Path
from typing import IO, Any

import click

from ias.cli.failures import CommandError
from ias.cli.management_api import ManagementApi, management_options

_FILE_BYTES_MAX = 1_000_000
_SHOWN = ("input_usd", "cached_input_usd", "output_usd", "request_usd", "effective_at", "effective_until")


@click.group()
def prices() -> None:
    """Prices of models, for platform admins."""


@prices.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["csv", "json", "yaml"]),
    help="What FILE is written in.  [default: by its name]",
)
@management_options("billing")
def import_prices(file: Path, *, dry_run: bool, file_format: str | None, url: str, token_file: IO[str] | None) -> None:
    """Bring prices to what FILE says. What is in force already is passed over; all of the rest is set, or nothing.

    FILE holds a list (in JSON and YAML perhaps under `prices`) of model, input_usd_per_million, output_usd_per_million and, where
    wanted, cached_input_usd_per_million, request_usd, org_id, effective_at, effective_until. In CSV these are the columns, and an
    empty field is none. Amounts are decimal strings such as "0.15".
    """
    entries = _read(file, file_format or file.suffix.lstrip(".").lower().replace("yml", "yaml"))
    told = ManagementApi(url, token_file).post("/billing/v1/prices/imports", {"prices": entries}, dry_run=dry_run)
    if dry_run:
        for change in told["changes"]:
            click.echo(_show(change))
        click.echo(f"{len(told['changes'])} of {len(entries)} would be set; nothing was changed", err=True)
    else:
        click.echo(f"{len(told['created'])} set, {told['unchanged']} in force already", err=True)


@prices.command()
@click.option("--org", required=True, metavar="ID", help="The org.")
@click.option("--model", help="Only this model's requests.")
@click.option(
    "--start", required=True, metavar="TIME", help="Requests admitted from then on, e.g. 2026-11-01T00:00:00Z."
)
@click.option("--end", required=True, metavar="TIME", help="Requests admitted before then.")
@click.option("--reason", required=True, help="Why, for whoever reads the ledger.")
@click.option("--dry-run", is_flag=True, help="Show the difference, and book nothing.")
@management_options("billing")
def rerate(
    *,
    org: str,
    model: str | None,
    start: str,
    end: str,
    reason: str,
    dry_run: bool,
    url: str,
    token_file: IO[str] | None,
) -> None:
    """Rate a period's requests at the prices known by now; book the differences as corrections."""
    body = {"org_id": org, "model": model, "start": start, "end": end, "reason": reason}
    told = ManagementApi(url, token_file).post("/billing/v1/reratings", body, dry_run=dry_run)
    if dry_run:
        told = told["changes"][0]["after"]
        told["models"] = [{"model": name, **difference} for name, difference in told["models"].items()]
    for each in told["models"]:
        click.echo(
            f"{each['model']}: {each['changed']} requests, {each['was_usd']} → {each['is_usd']} USD"
            f" ({each['difference_usd']})"
        )
    kept = f"{told['unpriced']} without a price and {told['decided']} decided by hand stay as they are"
    changed = sum(each["changed"] for each in told["models"])
    done = "would change; nothing was booked" if dry_run else "corrected"
    click.echo(f"{changed} of {told['requests']} requests {done}; {kept}", err=True)


def _read(file: Path, file_format: str) -> list[dict[str, Any]]:
    """The file's entries.

    Raises:
        CommandError: it is too large, or not what it should be.
    """
    text = file.read_bytes()
    if len(text) > _FILE_BYTES_MAX:
        raise CommandError(f"{file} is larger than {_FILE_BYTES_MAX} bytes")
    try:
        entries = _parse(text.decode("utf-8-sig"), file_format)
    except (ValueError, csv.Error) as error:
        raise CommandError(f"{file} is not such {file_format.upper()}: {error}") from error
    except RecursionError as error:
        raise CommandError(f"{file} is nested too deeply, or holds itself") from error
    if isinstance(entries, dict) and set(entries) == {"prices"}:
        entries = entries["prices"]
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise CommandError(f"{file} holds no list of prices")
    return entries


def _parse(text: str, file_format: str) -> Any:
    if file_format == "json":
        return json.loads(text)
    if file_format == "csv":
        reader = csv.DictReader(io.StringIO(text), strict=True)
        rows = [{name: value for name, value in row.items() if value not in ("", None)} for row in reader]
        if any(None in row for row in rows):
            raise ValueError("a line has more fields than the first one")
        return rows
    if file_format == "yaml":
        yaml = importlib.import_module("yaml")
        try:
            return _plain(yaml.load(text, Loader=yaml.BaseLoader))  # every scalar stays a string: 0.1 is no float
        except yaml.YAMLError as error:
            raise ValueError(" ".join(str(error).split())) from error
    raise click.UsageError("--format says whether FILE is csv, json or yaml")


def _plain(value: Any) -> Any:
    """YAML's words for nothing, as nothing."""
    if isinstance(value, dict):
        return {name: _plain(held) for name, held in value.items() if held not in ("", "null", "~")}
    return [_plain(held) for held in value] if isinstance(value, list) else value


def _show(change: dict[str, Any]) -> str:
    before, after = change["before"], change["after"]
    if before is None:
        told = ", ".join(f"{name} {after[name]}" for name in _SHOWN if after[name] is not None)
        return f"+ {after['model']}: {told}"
    told = ", ".join(f"{name} {before[name]} → {after[name]}" for name in _SHOWN if before[name] != after[name])
    return f"~ {after['model']}: {told}"

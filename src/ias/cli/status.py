"""`ias status`."""

import importlib
import json
from pathlib import Path
from typing import Any

import click

from ias.cli.data_dir import data_dir_option
from ias.cli.failures import UNAVAILABLE, CommandError


@click.command()
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def status(ctx: click.Context, data_dir: Path, *, as_json: bool) -> None:
    """Show what runs, and whether it is ready. Exit code 0: everything serves; 3: not running, or not ready."""
    inspection = importlib.import_module("ias.local.inspection")
    errors = importlib.import_module("ias.local.errors")
    directory = importlib.import_module("ias.local.data_directory").DataDirectory(data_dir)
    try:
        found = inspection.inspect(directory)
    except errors.PlatformError as error:
        raise CommandError(error.message, advice=error.advice) from error
    click.echo(json.dumps(_as_document(found, data_dir), indent=2) if as_json else _as_text(found, data_dir))
    if not found.ready:
        ctx.exit(UNAVAILABLE)


def _as_document(found: Any, data_dir: Path) -> dict[str, Any]:
    return {
        "running": found.running,
        "ready": found.ready,
        "phase": found.phase,
        "error": found.error,
        "data_dir": str(data_dir),
        "gateway_url": found.connection.gateway_url if found.connection else None,
        "management_url": found.connection.management_url if found.connection else None,
        "model": found.connection.model if found.connection else None,
        "processes": found.processes,
    }


def _as_text(found: Any, data_dir: Path) -> str:
    lines = [f"{found.phase} on {data_dir}" + (f": {found.error}" if found.error else "")]
    for process in found.processes:
        restarts = f"  restarted {process['restarts']} times" if process["restarts"] else ""
        lines.append(f"  {process['name']:<12} {process['pid'] or '-':>8}  {process['state']}{restarts}")
    if found.connection:
        lines += [
            f"  inference API {found.connection.gateway_url}/v1",
            f"  management    {found.connection.management_url}",
        ]
    return "\n".join(lines)

"""`ias down`."""

import importlib
from pathlib import Path

import click

from ias.cli.data_dir import data_dir_option
from ias.cli.failures import CommandError


@click.command()
@data_dir_option
def down(data_dir: Path) -> None:
    """Stop the platform that runs on this data and wait until nothing of it is left. The data stays."""
    inspection = importlib.import_module("ias.local.inspection")
    errors = importlib.import_module("ias.local.errors")
    directory = importlib.import_module("ias.local.data_directory").DataDirectory(data_dir)
    try:
        inspection.stop(directory)
    except errors.NotRunningError as error:
        click.echo(error.message)
        return
    except errors.PlatformError as error:
        raise CommandError(error.message, advice=error.advice) from error
    click.echo("everything is stopped")

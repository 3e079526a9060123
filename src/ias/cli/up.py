"""`ias up`."""

import asyncio
import importlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ias.cli.data_dir import data_dir_option
from ias.cli.failures import INTERRUPTED, CommandError


@click.command()
@data_dir_option
@click.option("--ephemeral", is_flag=True, help="Temporary data, deleted at the end, and free ports unless given.")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for other machines."
)
@click.option(
    "--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="Port of the inference API."
)
@click.option(
    "--management-port",
    type=click.IntRange(1, 65535),
    default=8080,
    show_default=True,
    help="Port of the management APIs.",
)
@click.option("--workers", type=click.IntRange(1, 64), help="Gateway processes.  [default: half the CPUs, at most 4]")
@click.option("--upstream", metavar="URL", help="Serve this OpenAI-compatible server instead of the built-in engine.")
@click.option("--upstream-key", envvar="IAS_UPSTREAM_KEY", help="Its API key; better given as IAS_UPSTREAM_KEY.")
@click.option("--model", metavar="NAME", help="The model's name.  [default: ias-sim, or the upstream's only model]")
@click.option("--detach", "-d", is_flag=True, help="Return when the platform is up; `ias down` stops it.")
@click.pass_context
def up(ctx: click.Context, /, **asked: Any) -> None:
    """Start the whole platform on this machine and print what to paste.

    PostgreSQL and Redis, the gateway, the management services, the event consumers and an inference engine; a first
    administrator, org, project, API key, model, price and monthly budget. Ctrl-C stops everything; starting again on the
    same data goes on where it ended.
    """
    given = {
        name
        for name in asked
        if ctx.get_parameter_source(name) not in (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
    }
    resolution = importlib.import_module("ias.local.resolution")
    errors = importlib.import_module("ias.local.errors")
    if asked["ephemeral"] and ctx.get_parameter_source("data_dir") is ParameterSource.COMMANDLINE:
        raise click.UsageError("--ephemeral and --data-dir exclude each other")
    try:
        options = asyncio.run(resolution.resolve_options(asked, given, click.echo))
        if options.ephemeral:
            options = replace(options, data_root=Path(tempfile.mkdtemp(prefix="ias-")))
        if asked["detach"]:
            importlib.import_module("ias.local.background").run_in_background(options)
        else:
            importlib.import_module("ias.local.foreground").run_in_foreground(options)
    except errors.UsageProblemError as error:
        raise click.UsageError(str(error)) from error
    except errors.InterruptedStartError:
        ctx.exit(INTERRUPTED)
    except errors.PlatformError as error:
        raise CommandError(error.message, advice=error.advice) from error

"""`ias`: the list of commands, and how a command's failure becomes a line and an exit code.

Exit codes: 0 done; 1 it failed, and the line says why; 2 wrong usage; 3 what was asked about is not running or not ready;
130 interrupted. Commands are imported when they are called, so that help comes at once.
"""

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import click


@dataclass(frozen=True)
class _Entry:
    """Where a command is and what the list says of it; its own help may say more."""

    module: str
    attribute: str
    summary: str


_COMMANDS: Mapping[str, _Entry] = {
    "up": _Entry("ias.cli.up", "up", "Start the whole platform on this machine."),
    "down": _Entry("ias.cli.down", "down", "Stop a platform that runs on this machine."),
    "status": _Entry("ias.cli.status", "status", "Show what runs, and whether it is ready."),
    "logs": _Entry("ias.cli.logs", "logs", "Show the logs of the platform's processes."),
    "serve": _Entry("ias.cli.serve", "serve", "Run one service in the foreground."),
    "consume": _Entry("ias.cli.consume", "consume", "Run event consumers in the foreground."),
    "dead-letters": _Entry(
        "ias.cli.dead_letters", "dead_letters", "Show, replay or remove what consumers could not book."
    ),
    "reconcile": _Entry("ias.cli.reconcile", "reconcile", "Compare the ledger with everything that follows it."),
    "migrate": _Entry("ias.cli.migrate", "migrate", "Bring services' databases to the current schema."),
    "models": _Entry("ias.cli.models", "models", "Show and change models and their routes."),
    "backends": _Entry("ias.cli.backends", "backends", "Show, change, verify, drain and kill backends."),
    "prices": _Entry("ias.cli.prices", "prices", "Bring prices to what a file says; re-rate a period."),
    "budgets": _Entry("ias.cli.budgets", "budgets", "Show and change budgets; raise one for a while."),
    "spending-settings": _Entry(
        "ias.cli.spending_settings", "spending_settings", "Show and change an org's weight, time zone and allowances."
    ),
    "statements": _Entry("ias.cli.statements", "statements", "Write what an org was charged to a file."),
    "audit": _Entry("ias.cli.audit", "audit", "Export the audit log, and prove an export."),
    "engine": _Entry("ias.cli.engine", "engine", "Run an inference engine in the foreground."),
    "version": _Entry("ias.cli.version", "version", "Show the version."),
}


class LazyGroup(click.Group):
    """A group that knows its commands' names and summaries, and imports a command only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """The names, in the order in which a newcomer meets them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click's signature
        """Import a command."""
        entry = _COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = getattr(importlib.import_module(entry.module), entry.attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # click's signature
        """The list in `ias --help`, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in _COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def ias() -> None:
    """Your own models as a metered, governed, OpenAI-compatible service.

    `ias up` starts everything on this machine and prints what to paste.
    """


def main() -> None:
    """The console script."""
    try:
        status = ias.main(prog_name="ias", standalone_mode=False)
    except click.exceptions.Exit as wanted:
        sys.exit(wanted.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # `ias logs | head`: the reader has seen enough
        sys.exit(0)
    sys.exit(status if isinstance(status, int) else 0)

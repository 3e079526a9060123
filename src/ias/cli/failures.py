"""Failures as the command line tells them: one line on stderr and an exit code, never a traceback."""

from typing import IO, Any

import click

FAILED = 1
UNAVAILABLE = 3
INTERRUPTED = 130


class CommandError(click.ClickException):
    """What was asked for could not be done."""

    def __init__(self, message: str, *, advice: str = "", exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.advice = advice
        self.context = click.get_current_context(silent=True)
        self.exit_code = exit_code  # type: ignore[misc]  # click reads it from the instance

    def show(self, file: IO[Any] | None = None) -> None:
        """What went wrong, then what to do."""
        name = self.context.command_path if self.context else "ias"
        text = f"{name}: {self.message}" + (f"; {self.advice}" if self.advice else "")
        click.echo(text, file=file, err=file is None)

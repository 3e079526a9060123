"""Files that commands write: complete, or not there."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ias.cli.failures import CommandError


@contextlib.contextmanager
def open_output(output: Path | None) -> Iterator[IO[bytes]]:
    """A file to write to, removed again when the block fails; stdout for None.

    Raises:
        CommandError: it cannot be written.
    """
    if output is None:
        yield sys.stdout.buffer
        return
    try:
        with output.open("wb") as target, contextlib.ExitStack() as unless_complete:
            unless_complete.callback(_remove, output)
            yield target
            target.flush()
            unless_complete.pop_all()
    except OSError as error:
        raise CommandError(f"{output} cannot be written: {error.strerror}") from error


def _remove(output: Path) -> None:
    """Remove a file that is not whole. What is no regular file (a device, a pipe) was there before and stays."""
    if output.is_file():
        with contextlib.suppress(OSError):
            output.unlink()

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
        with output.open("wb") as target:
            yield target
    except BaseException as error:
        with contextlib.suppress(OSError):
            output.unlink()
        if isinstance(error, OSError):
            raise CommandError(f"{output} cannot be written: {error.strerror}") from error
        raise

"""How a starting platform tells of itself: lines for people, kept in `logs/up.log`, and the same over a pipe when detached."""

import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

Line = Callable[[str], None]


class Reporter:
    """Passes each line on with the seconds since the start, and appends it to the log once there is a place for it."""

    def __init__(self, show: Line, log_file: Path) -> None:
        self._show = show
        self._log_file = log_file
        self._started = time.monotonic()

    def __call__(self, line: str) -> None:
        """Tell one thing."""
        self._show(f"  {time.monotonic() - self._started:5.1f} s  {line}")
        try:
            with self._log_file.open("a") as log:
                log.write(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {line}\n")
        except OSError:
            return  # no directory yet, or a full disk: the line was shown


class Pipe:
    """The detached supervisor's end: one JSON object per line. A reader that went away is no reason to stop."""

    def __init__(self, stream: TextIO) -> None:
        self._stream: TextIO | None = stream

    def send(self, kind: str, value: Any) -> None:
        """Tell the launcher something: `line`, `ready` or `error`."""
        if self._stream is None:
            return
        try:
            self._stream.write(json.dumps({kind: value}) + "\n")
            self._stream.flush()
        except OSError:
            self._stream = None

    def close(self) -> None:
        """End the conversation: the launcher goes on without us."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            try:
                stream.close()
            except OSError:
                return


def show_on_terminal(line: str) -> None:
    """Print at once, also when the output is a file or a pipe."""
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except OSError:
        return  # whoever read it went away; the platform goes on

"""The time in the spellings that every answer and every record need, most of it worked out once a second.

Reading a clock costs as much as several function calls, so what may be a tick old (see `Worker`) is read with each tick.
"""

import time
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final

_THOUSANDTHS: Final = tuple(f".{thousandth:03d}" for thousandth in range(1000))


def format_millis(time_s: float) -> str:
    """A time in milliseconds with three decimals: a third of what formatting the float takes."""
    micros = int(time_s * 1_000_000 + 0.5)
    return f"{micros // 1000}{_THOUSANDTHS[micros % 1000]}"


class Clock:
    """Formats the current time."""

    def __init__(self) -> None:
        self.second = -1
        """Unix seconds, as of the last tick."""
        self.monotonic = 0.0
        """`time.monotonic`, which the event loop's time is too, as of the last tick."""
        self.date_line = b""
        """HTTP's Date header, as of the last tick."""
        self._formatted = -1
        self._rfc3339 = ""
        self.tick()

    def tick(self) -> None:
        """Called several times a second by the worker."""
        self.monotonic = time.monotonic()
        second = int(time.time())
        if second != self.second:
            self.second = second
            moment = datetime.fromtimestamp(second, UTC)
            self.date_line = f"date: {format_datetime(moment, usegmt=True)}\r\n".encode()

    def rfc3339(self, at: float) -> str:
        """A moment in Unix seconds, in UTC, with milliseconds."""
        millis = int(at * 1000)
        second = millis // 1000
        if second != self._formatted:
            self._formatted = second
            self._rfc3339 = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._rfc3339}{_THOUSANDTHS[millis % 1000]}Z"

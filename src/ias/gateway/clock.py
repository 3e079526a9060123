"""The date in the two spellings that every answer and every record carry, worked out once a second."""

import time
from datetime import UTC, datetime
from email.utils import format_datetime


class Clock:
    """Formats the current time."""

    def __init__(self) -> None:
        self._second = -1
        self._rfc3339 = ""
        self._date_line = b""

    def _turn(self, second: int) -> None:
        moment = datetime.fromtimestamp(second, UTC)
        self._second = second
        self._rfc3339 = moment.strftime("%Y-%m-%dT%H:%M:%S")
        self._date_line = f"date: {format_datetime(moment, usegmt=True)}\r\n".encode()

    def rfc3339(self) -> str:
        """Now, in UTC, with milliseconds."""
        now_ns = time.time_ns()
        second = now_ns // 1_000_000_000
        if second != self._second:
            self._turn(second)
        return f"{self._rfc3339}.{now_ns // 1_000_000 % 1000:03d}Z"

    def date_line(self) -> bytes:
        """Now, as HTTP's Date header."""
        second = int(time.time())
        if second != self._second:
            self._turn(second)
        return self._date_line

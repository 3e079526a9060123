"""Moments that callers name in queries: any aware timestamp, brought to UTC and into the span that ids and databases can hold.

"Since 1900" is a fair way to say "from the beginning", so what lies outside is moved to the nearest end instead of refused.
"""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
"""UUIDv7 counts from here."""

LATEST = datetime(9000, 1, 1, tzinfo=UTC)
"""Far enough from the last year a datetime can hold that spans may be added."""


def _bring_into_span(moment: datetime) -> datetime:
    try:
        utc = moment.astimezone(UTC)
    except OverflowError:  # an offset that leads out of the years 1 to 9999
        utc = LATEST if moment.year > 1 else EARLIEST
    return min(max(utc, EARLIEST), LATEST)


Moment = Annotated[AwareDatetime, AfterValidator(_bring_into_span)]
"""The type of `start` and `end` in a query."""

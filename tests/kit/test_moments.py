from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from ias.kit.moments import EARLIEST, LATEST, Moment
from ias.kit.partitions import uuid_floor

MOMENT = TypeAdapter(Moment)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("2026-11-23T10:00:00+02:00", datetime(2026, 11, 23, 8, tzinfo=UTC)),
        ("1900-01-01T00:00:00Z", EARLIEST),
        ("0001-01-01T00:00:00+14:00", EARLIEST),
        ("9999-12-31T23:59:59-14:00", LATEST),
    ],
)
def test_moments_are_brought_into_the_span_that_ids_can_hold(text: str, read: datetime) -> None:
    assert MOMENT.validate_python(text) == read


def test_a_moment_without_an_offset_is_refused() -> None:
    with pytest.raises(ValidationError):
        MOMENT.validate_python("2026-11-23T10:00:00")


@given(st.datetimes(), st.integers(-14 * 60, 14 * 60))
def test_every_moment_has_a_smallest_id(naive: datetime, offset_minutes: int) -> None:
    sign = "-" if offset_minutes < 0 else "+"
    hours, minutes = divmod(abs(offset_minutes), 60)
    moment = MOMENT.validate_python(f"{naive.isoformat()}{sign}{hours:02}:{minutes:02}")
    assert uuid_floor(moment) <= uuid_floor(moment + timedelta(days=800))

"""Windows and prices: which one a moment falls in."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ias.contracts.spending import Price, PriceTable, Window, window_id, window_start

MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
BOUNDED: list[Window] = ["day", "week", "month"]


@pytest.mark.parametrize(
    ("moment", "day", "week", "month"),
    [
        (datetime(2026, 11, 23, 4, 43, tzinfo=UTC), "2026-11-23", "2026-W48", "2026-11"),
        (datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC), "2026-12-31", "2026-W53", "2026-12"),
        (datetime(2027, 1, 1, tzinfo=UTC), "2027-01-01", "2026-W53", "2027-01"),
        (datetime(2028, 2, 29, tzinfo=UTC), "2028-02-29", "2028-W09", "2028-02"),
        (datetime(2024, 12, 30, tzinfo=UTC), "2024-12-30", "2025-W01", "2024-12"),
    ],
)
def test_windows_have_these_names(moment: datetime, day: str, week: str, month: str) -> None:
    at = moment.timestamp()
    assert [window_id(window, at) for window in BOUNDED] == [day, week, month]
    assert window_id("total", at) == "total"


@given(MOMENTS, st.sampled_from(BOUNDED))
def test_a_window_starts_in_itself_and_not_a_second_earlier(moment: datetime, window: Window) -> None:
    at = moment.timestamp()
    start = window_start(window, at)
    assert start is not None
    assert start <= moment
    assert window_id(window, start.timestamp()) == window_id(window, at)
    assert window_id(window, (start - timedelta(seconds=1)).timestamp()) != window_id(window, at)


@given(MOMENTS, st.timedeltas(timedelta(0), timedelta(days=40)), st.sampled_from(BOUNDED))
def test_windows_come_one_after_the_other_and_never_return(moment: datetime, later: timedelta, window: Window) -> None:
    one, other = moment.timestamp(), (moment + later).timestamp()
    starts = window_start(window, one), window_start(window, other)
    assert starts[0] is not None
    assert starts[1] is not None
    assert (starts[0] == starts[1]) == (window_id(window, one) == window_id(window, other))
    assert starts[0] <= starts[1]


def test_the_whole_time_has_no_beginning() -> None:
    assert window_start("total", 0.0) is None


def price(effective_at: int, model: str = "m") -> Price:
    return Price(
        id=f"p{effective_at}",
        version=1,
        model=model,
        effective_at=effective_at,
        input_nano_usd_per_million=3,
        cached_input_nano_usd_per_million=1,
        output_nano_usd_per_million=5,
    )


@given(st.lists(st.integers(0, 1000), unique=True).map(sorted), st.floats(-1, 1001))
def test_the_price_in_force_is_the_latest_that_has_begun(starts: list[int], at: float) -> None:
    table = PriceTable(version=1, prices={"m": tuple(price(start) for start in starts)})
    begun = [start for start in starts if start <= at]
    found = table.find("m", at)
    assert (found.effective_at if found else None) == (begun[-1] if begun else None)


def test_a_model_without_a_price_has_none() -> None:
    assert PriceTable(version=1, prices={}).find("m", 0) is None


def test_a_price_charges_cached_tokens_at_their_own_rate_and_rounds_up() -> None:
    assert price(0).cost(input_tokens=1_000_000, cached_input_tokens=400_000, output_tokens=200_000) == 2 + 1 + 1

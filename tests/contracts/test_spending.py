"""Windows and prices: which one a moment falls in."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ias.contracts.money import cost_nano_usd
from ias.contracts.spending import (
    COUNTER_KEPT_S,
    Budget,
    BudgetRaise,
    Price,
    PriceTable,
    Window,
    window_end,
    window_id,
    window_parts,
    window_start,
)

MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
BOUNDED: list[Window] = ["day", "week", "month"]
ROLLING: dict[Window, tuple[timedelta, timedelta]] = {
    "rolling_24h": (timedelta(hours=24), timedelta(hours=1)),
    "rolling_7d": (timedelta(days=7), timedelta(hours=6)),
    "rolling_30d": (timedelta(days=30), timedelta(days=1)),
}
"""How long each is, and its parts."""


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
    assert (
        cost_nano_usd(price(0), input_tokens=1_000_000, cached_input_tokens=400_000, output_tokens=200_000) == 2 + 1 + 1
    )


ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Pacific/Apia", "America/Havana",
         "Africa/Cairo", "Australia/Lord_Howe", "Asia/Beirut"]  # fmt: skip


@given(MOMENTS, st.sampled_from(BOUNDED), st.sampled_from(ZONES))
def test_windows_of_every_zone_follow_one_another_without_gap_or_overlap(
    moment: datetime, window: Window, zone: str
) -> None:
    at = moment.timestamp()
    start, end = window_start(window, at, zone), window_end(window, at, zone)
    assert start is not None
    assert end is not None
    assert start.timestamp() <= at < end.timestamp()
    for within in (start.timestamp(), end.timestamp() - 1):
        assert window_id(window, within, zone) == window_id(window, at, zone)
    for without in (start.timestamp() - 1, end.timestamp()):
        assert window_id(window, without, zone) != window_id(window, at, zone)
    assert window_start(window, end.timestamp(), zone) == end


@pytest.mark.parametrize(
    ("zone", "at", "day", "hours"),
    [
        ("Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-29", 23),
        ("Europe/Berlin", "2026-10-25T12:00:00Z", "2026-10-25", 25),
        ("Europe/Berlin", "2026-11-22T23:00:00Z", "2026-11-23", 24),
        ("Asia/Kolkata", "2026-11-22T18:30:00Z", "2026-11-23", 24),
        ("Asia/Beirut", "2026-03-29T12:00:00Z", "2026-03-29", 23),  # the clock jumps over midnight itself
        ("America/Havana", "2026-11-01T12:00:00Z", "2026-11-01", 25),  # and here it strikes midnight twice
        ("Australia/Lord_Howe", "2026-10-04T06:00:00Z", "2026-10-04", 23.5),
    ],
)
def test_a_day_is_as_long_as_the_zones_clock_makes_it(zone: str, at: str, day: str, hours: float) -> None:
    moment = datetime.fromisoformat(at).timestamp()
    start, end = window_start("day", moment, zone), window_end("day", moment, zone)
    assert start is not None
    assert end is not None
    assert (window_id("day", moment, zone), end - start) == (day, timedelta(hours=hours))


def test_months_have_their_own_lengths() -> None:
    def days(at: str) -> int:
        moment = datetime.fromisoformat(at).timestamp()
        start, end = window_start("month", moment, "America/New_York"), window_end("month", moment, "America/New_York")
        assert start is not None
        assert end is not None
        return round((end - start) / timedelta(days=1))

    assert [days(f"20{year}-15T12:00:00Z") for year in ("26-01", "26-02", "28-02", "26-04", "26-12")] == [
        31,
        28,
        29,
        30,
        31,
    ]


@given(MOMENTS, st.sampled_from(list(ROLLING)))
def test_a_rolling_window_counts_all_of_its_length_and_at_most_one_part_more(moment: datetime, window: Window) -> None:
    length, part_length = ROLLING[window]
    parts = window_parts(window, moment.timestamp())
    spans = [(part.start or moment, part.end or moment) for part in parts]
    assert spans[0][0] <= moment < spans[0][1]
    assert all(older[1] == newer[0] for newer, older in itertools.pairwise(spans))
    assert moment - length - part_length < spans[-1][0] <= moment - length
    assert all(start.minute == start.second == 0 and end - start == part_length for start, end in spans)
    assert len({part.id for part in parts}) == len(parts)


@given(MOMENTS, st.timedeltas(timedelta(0), timedelta(days=40)), st.sampled_from(list(ROLLING)))
def test_what_was_spent_within_the_length_of_a_rolling_window_is_counted_later(
    moment: datetime, later: timedelta, window: Window
) -> None:
    length, part_length = ROLLING[window]
    counted = {part.id for part in window_parts(window, (moment + later).timestamp())}
    is_counted = window_id(window, moment.timestamp()) in counted
    assert is_counted or later > length
    assert not is_counted or later < length + part_length


@pytest.mark.parametrize("window", list(ROLLING))
def test_a_counter_outlives_the_time_in_which_it_is_asked(window: Window) -> None:
    """From its first use at the beginning of its part to the last moment at which that is counted, and a day more."""
    length, part_length = ROLLING[window]
    assert timedelta(seconds=COUNTER_KEPT_S[window]) >= length + part_length + timedelta(days=1)


def test_rolling_windows_have_no_zone_and_no_end() -> None:
    at = datetime(2026, 11, 23, 18, 43, tzinfo=UTC).timestamp()
    for window, newest, oldest in (
        ("rolling_24h", "2026-11-23T18", "2026-11-22T18"),
        ("rolling_7d", "2026-11-23T18", "2026-11-16T18"),
        ("rolling_30d", "2026-11-23T00", "2026-10-24T00"),
    ):
        parts = window_parts(window, at, "Asia/Kolkata")  # type: ignore[arg-type]
        assert (parts[0].id, parts[-1].id) == (newest, oldest)
        assert window_end(window, at) is None  # type: ignore[arg-type]
        assert window_start(window, at) == parts[-1].start  # type: ignore[arg-type]


def test_a_raise_widens_a_limit_until_its_end() -> None:
    raises = (BudgetRaise(amount_nano_usd=5, expires_at=100), BudgetRaise(amount_nano_usd=7, expires_at=200))
    budget = Budget(
        id="b", scope_kind="org", scope_id="o", window="total", limit_nano_usd=10, mode="hard", raises=raises
    )
    assert [budget.limit_at(at) for at in (99.9, 100, 199, 200)] == [22, 17, 17, 10]

"""Money is exact: what is read can be written, costs add up, and a bound is a bound."""

from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ias.contracts.money import (
    AMOUNT_NANO_USD_MAX,
    NANO_PER_USD,
    InvalidAmountError,
    cost_nano_usd,
    format_usd,
    parse_usd,
)

AMOUNTS = st.integers(0, AMOUNT_NANO_USD_MAX)
TOKENS = st.integers(0, 10**9)
PRICES = st.integers(0, 10**12)


@given(AMOUNTS)
def test_an_amount_survives_being_written_and_read(nano: int) -> None:
    assert parse_usd(format_usd(nano)) == nano


@given(st.integers(-AMOUNT_NANO_USD_MAX, AMOUNT_NANO_USD_MAX))
def test_an_amount_is_written_exactly_plainly_and_with_two_decimals_at_least(nano: int) -> None:
    text = format_usd(nano)
    assert Decimal(text) * NANO_PER_USD == nano
    assert "e" not in text.lower()
    assert len(text.split(".")[1]) >= 2
    assert not text.endswith("0") or len(text.split(".")[1]) == 2


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("0", 0),
        ("0.15", 150_000_000),
        ("12.50", 12_500_000_000),
        ("0.000000001", 1),
        ("9000000", AMOUNT_NANO_USD_MAX),
        ("007.5", 7_500_000_000),
    ],
)
def test_amounts_are_read(text: str, nano: int) -> None:
    assert parse_usd(text) == nano


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "abc",
        "1,50",
        "$1",
        "-1",
        "-0.000000001",
        "NaN",
        "Infinity",
        "-inf",
        "0.0000000001",
        "9000000.01",
        "1e30",
        "1e2",
        "1_000",
        " 1 ",
        "\u0661",
    ],
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(InvalidAmountError):
        parse_usd(text)


@given(st.text(max_size=30))
def test_any_text_is_an_amount_or_refused_and_nothing_worse(text: str) -> None:
    try:
        assert 0 <= parse_usd(text) <= AMOUNT_NANO_USD_MAX
    except InvalidAmountError:
        pass


@pytest.mark.parametrize("text", ["1e999999999", "1e-999999999", "0e999999999", "9" * 5000])
def test_a_text_made_to_be_slow_is_refused_or_read_at_once(text: str) -> None:
    try:
        assert parse_usd(text) == 0
    except InvalidAmountError:
        pass


def test_the_largest_amount_is_exact_as_a_double() -> None:
    assert AMOUNT_NANO_USD_MAX < 2**53


class Rates(NamedTuple):
    request_nano_usd: int
    input_nano_usd_per_million: int
    cached_input_nano_usd_per_million: int
    output_nano_usd_per_million: int


def cost(tokens: tuple[int, int, int], prices: tuple[int, int, int]) -> int:
    rates = Rates(0, *prices)
    return cost_nano_usd(rates, input_tokens=tokens[0], cached_input_tokens=tokens[1], output_tokens=tokens[2])


COUNTS = st.tuples(TOKENS, TOKENS, TOKENS).map(lambda t: (max(t[0], t[1]), min(t[0], t[1]), t[2]))
RATES = st.tuples(PRICES, PRICES, PRICES)


@given(COUNTS, RATES)
def test_a_cost_is_the_exact_sum_rounded_up_to_the_next_nano(
    tokens: tuple[int, int, int], prices: tuple[int, int, int]
) -> None:
    exact = Fraction((tokens[0] - tokens[1]) * prices[0] + tokens[1] * prices[1] + tokens[2] * prices[2], 1_000_000)
    assert cost(tokens, prices) == ceil(exact)


@given(COUNTS, RATES, TOKENS, TOKENS)
def test_more_tokens_never_cost_less(
    tokens: tuple[int, int, int], prices: tuple[int, int, int], more_input: int, more_output: int
) -> None:
    """So a reservation for the most that can be used covers whatever is used."""
    bound = (tokens[0] + more_input, tokens[1], tokens[2] + more_output)
    assert cost(bound, prices) >= cost(tokens, prices)


@given(COUNTS, PRICES, PRICES, st.integers(0, 10**12))
def test_cached_tokens_cost_no_more_than_fresh_ones_where_their_price_is_not_higher(
    tokens: tuple[int, int, int], output_price: int, cached_price: int, above: int
) -> None:
    prices = (cached_price + above, cached_price, output_price)
    assert cost(tokens, prices) <= cost((tokens[0], 0, tokens[2]), prices)


@given(st.lists(st.tuples(COUNTS, RATES), max_size=8))
def test_the_sum_of_costs_is_at_most_one_nano_a_request_above_the_exact_sum(
    requests: list[tuple[tuple[int, int, int], tuple[int, int, int]]],
) -> None:
    exact = sum(
        (Fraction((t[0] - t[1]) * p[0] + t[1] * p[1] + t[2] * p[2], 1_000_000) for t, p in requests), Fraction(0)
    )
    booked = sum(cost(tokens, prices) for tokens, prices in requests)
    assert exact <= booked <= exact + len(requests)

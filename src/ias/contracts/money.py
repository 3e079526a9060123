"""Money is integer nano-USD (1e-9 USD) inside and a decimal string at the edges. Floats never.

Prices are nano-USD per million tokens: `"0.15"` USD per million is 150_000_000. A cost is rounded **up** to the next
nano-USD, at reservation and at settlement alike, so that a settled cost can never exceed the reservation that bounded it.
"""

import re
from decimal import Decimal
from typing import Protocol

NANO_PER_USD = 1_000_000_000
TOKENS_PER_PRICE = 1_000_000

AMOUNT_NANO_USD_MAX = 9_000_000 * NANO_PER_USD
"""The largest amount a limit may have: Redis' Lua counts in doubles, exact only up to 2**53."""

_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,30})?")


class InvalidAmountError(ValueError):
    """The text is not an amount of USD that nano-USD can hold."""


def parse_usd(text: str) -> int:
    """Nano-USD of a decimal string such as `"12.50"`.

    Raises:
        InvalidAmountError: not a plain decimal number, negative, finer than a nano-USD, or above the largest amount.
    """
    if not _DECIMAL.fullmatch(text):
        raise InvalidAmountError(f"{text!r} is not a decimal amount of USD such as 12.50")
    amount = Decimal(text)
    if amount > AMOUNT_NANO_USD_MAX // NANO_PER_USD:
        raise InvalidAmountError(f"{text!r} is above the largest amount, {AMOUNT_NANO_USD_MAX // NANO_PER_USD} USD")
    nano = amount * NANO_PER_USD
    if nano != nano.to_integral_value():
        raise InvalidAmountError(f"{text!r} is finer than a nano-USD (nine decimals)")
    return int(nano)


def format_usd(nano_usd: int) -> str:
    """The decimal string of an amount: no exponent, no trailing zeros, at least two decimals."""
    sign, nano = ("-", -nano_usd) if nano_usd < 0 else ("", nano_usd)
    whole, rest = divmod(nano, NANO_PER_USD)
    decimals = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{decimals}"


class Rates(Protocol):
    """What a request is charged."""

    @property
    def request_nano_usd(self) -> int:
        """For being served, besides its tokens."""

    @property
    def input_nano_usd_per_million(self) -> int:
        """For tokens of the prompt that were computed."""

    @property
    def cached_input_nano_usd_per_million(self) -> int:
        """For tokens of the prompt that were found in a cache."""

    @property
    def output_nano_usd_per_million(self) -> int:
        """For tokens of the answer."""


def cost_nano_usd(rates: Rates, *, input_tokens: int, cached_input_tokens: int, output_tokens: int) -> int:
    """What a request costs. `cached_input_tokens` are part of `input_tokens` and are charged at their own price."""
    total = (
        (input_tokens - cached_input_tokens) * rates.input_nano_usd_per_million
        + cached_input_tokens * rates.cached_input_nano_usd_per_million
        + output_tokens * rates.output_nano_usd_per_million
    )
    return rates.request_nano_usd - (-total // TOKENS_PER_PRICE)

"""Prices, budgets and rate limits as billing tells them to every gateway, and the windows that budgets count in.

Three kinds of JSON documents in Redis: one price table, one policy per org that has budgets or rate limits, and one small marker
that says the spending counters are complete. A gateway that cannot see the marker admits nothing: counters that were lost
with Redis' data must be rebuilt from the ledger first.
"""

from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

from ias.contracts.money import cost_nano_usd

ScopeKind = Literal["org", "project", "api_key", "user", "model"]
Window = Literal["day", "week", "month", "total"]
Mode = Literal["hard", "soft"]
Metric = Literal["requests_per_minute", "tokens_per_minute", "requests_per_day", "concurrency"]
"""What a rate limit counts. `concurrency` is requests being served at a time. Days are those of UTC."""


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What a model costs from `effective_at` on, until a later price of the same model takes effect."""

    id: str
    version: int
    model: str
    effective_at: int
    """Unix seconds."""
    input_nano_usd_per_million: int
    cached_input_nano_usd_per_million: int
    output_nano_usd_per_million: int

    def cost(self, *, input_tokens: int, cached_input_tokens: int, output_tokens: int) -> int:
        """Nano-USD for the given counts, rounded up (see `money`)."""
        return cost_nano_usd(
            input_tokens=input_tokens,
            cached_input_tokens=cached_input_tokens,
            output_tokens=output_tokens,
            input_nano_usd_per_million=self.input_nano_usd_per_million,
            cached_input_nano_usd_per_million=self.cached_input_nano_usd_per_million,
            output_nano_usd_per_million=self.output_nano_usd_per_million,
        )


class PriceTable(msgspec.Struct, frozen=True, kw_only=True):
    """Prices by public model name, each list ordered by `effective_at`, under `redis_keys.PRICES`."""

    version: int
    prices: dict[str, tuple[Price, ...]]

    def find(self, model: str, at: float) -> Price | None:
        """The price in force at a time in Unix seconds; None where the model is unpriced."""
        in_force = None
        for price in self.prices.get(model, ()):
            if price.effective_at > at:
                break
            in_force = price
        return in_force


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """A ceiling on what a scope may spend in a window."""

    id: str
    scope_kind: ScopeKind
    scope_id: str
    """An id, or the public name for a model."""
    window: Window
    limit_nano_usd: int
    mode: Mode


class RateLimit(msgspec.Struct, frozen=True, kw_only=True):
    """A ceiling on how fast a scope may send requests or use tokens, or on how much of it at a time."""

    id: str
    scope_kind: ScopeKind
    scope_id: str
    """An id, or the public name for a model: then it bounds this org's use of the model."""
    metric: Metric
    limit: int
    """At least 1; also what may come at once after a pause."""


class SpendingPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """All budgets and rate limits of one org, under `redis_keys.spending_policy(org_id)`."""

    version: int
    org_id: str
    budgets: tuple[Budget, ...]
    rate_limits: tuple[RateLimit, ...] = ()


class ReservationClaim(msgspec.Struct, frozen=True, kw_only=True):
    """For whom a reservation was made: what billing books by, should its gateway never say what became of it."""

    project_id: str
    api_key_id: str
    user_id: str | None
    service_account_id: str | None
    model: str
    budgets: tuple[str, ...]
    """Ids of the budgets that hold it."""


def window_id(window: Window, at: float) -> str:
    """The name of the window that a time in Unix seconds falls in, in UTC: `2026-11-23`, `2026-W48`, `2026-11`, `total`.

    It is part of the counter's key, so nothing ever needs resetting.
    """
    moment = datetime.fromtimestamp(at, UTC)
    match window:
        case "day":
            return moment.strftime("%Y-%m-%d")
        case "week":
            return moment.strftime("%G-W%V")
        case "month":
            return moment.strftime("%Y-%m")
        case "total":
            return "total"


def window_start(window: Window, at: float) -> datetime | None:
    """When the window that a time in Unix seconds falls in began (UTC); None for `total`, which has no beginning."""
    moment = datetime.fromtimestamp(at, UTC)
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    match window:
        case "day":
            return midnight
        case "week":
            return midnight - timedelta(days=moment.weekday())
        case "month":
            return midnight.replace(day=1)
        case "total":
            return None

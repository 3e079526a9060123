"""Prices, budgets and rate limits as billing tells them to every gateway, and the windows that budgets count in.

Three kinds of JSON documents in Redis: one price table, one policy per org that has budgets, rate limits or prices of its own, and
one small marker that says the spending counters are complete. A gateway that cannot see the marker admits nothing: counters that
were lost with Redis' data must be rebuilt from the ledger first.
"""

from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from ias.contracts.money import AMOUNT_NANO_USD_MAX

ScopeKind = Literal["org", "project", "api_key", "user", "model"]
Window = Literal["day", "week", "month", "total", "rolling_24h", "rolling_7d", "rolling_30d"]
"""What a budget counts: a day, a week (from Monday on), a month of the calendar of its time zone; everything ever; or, rolling, the
last so many hours or days at any moment."""
Mode = Literal["hard", "soft", "alert"]
"""What a budget refuses: `hard` whatever might exceed it; `soft` everything once it is spent, so that what was in flight then may
exceed it; `alert` nothing, it only counts."""
AtLimit = Literal["block", "require_override"]
"""What becomes of what a budget refuses: `block`, it has to wait, or the budget has to be changed; `require_override`, a person may
let more through until the window ends, and the refusal says so."""
Metric = Literal["requests_per_minute", "tokens_per_minute", "requests_per_day", "concurrency"]
"""What a rate limit counts. `concurrency` is requests being served at a time. Days are those of UTC."""


UTC_ZONE = "UTC"

QUEUE_WEIGHT_USUAL = 100
QUEUE_WEIGHT_MAX = 10_000

Unpriced = Literal["refuse", "allow"]
"""What becomes of a request whose model has no price: it is refused, or served at no cost and booked as `unpriced`."""


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What a model costs from `effective_at` on, until a later price of the same model takes effect or its own end."""

    id: str
    version: int
    model: str
    effective_at: int
    """Unix seconds."""
    input_nano_usd_per_million: int
    cached_input_nano_usd_per_million: int
    output_nano_usd_per_million: int
    request_nano_usd: int = 0
    """For each request that was served, besides its tokens."""
    effective_until: int | None = None
    """Unix seconds: from then on it is as if the price were not there."""


def find_in_force(prices: tuple[Price, ...], at: float) -> Price | None:
    """Of a model's prices, ordered by `effective_at`, the one in force at a time in Unix seconds."""
    in_force = None
    for price in prices:
        if price.effective_at > at:
            break
        in_force = price
    if in_force is not None and in_force.effective_until is not None and in_force.effective_until <= at:
        return None
    return in_force


class PriceTable(msgspec.Struct, frozen=True, kw_only=True):
    """Prices by public model name, each list ordered by `effective_at`, under `redis_keys.PRICES`.

    They are for every org that has no price of its own for the model in its `SpendingPolicy`.
    """

    version: int
    prices: dict[str, tuple[Price, ...]]

    def find(self, model: str, at: float) -> Price | None:
        """The price in force at a time in Unix seconds; None where the model is unpriced."""
        return find_in_force(self.prices.get(model, ()), at)


class BudgetRaise(msgspec.Struct, frozen=True, kw_only=True):
    """More room in a budget, until a moment."""

    amount_nano_usd: int
    expires_at: int
    """Unix seconds."""


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """A ceiling on what a scope may spend in a window."""

    id: str
    scope_kind: ScopeKind
    scope_id: str
    """An id, or the public name for a model."""
    window: Window
    limit_nano_usd: int
    mode: Mode
    time_zone: str = UTC_ZONE
    """Whose midnights the window begins and ends at. It never changes. A rolling one has no use for it."""
    raises: tuple[BudgetRaise, ...] = ()
    at_limit: AtLimit = "block"

    def limit_at(self, at: float) -> int:
        """The limit with the raises that are in force at a time in Unix seconds."""
        if not self.raises:
            return self.limit_nano_usd
        raised = sum(one.amount_nano_usd for one in self.raises if one.expires_at > at)
        return min(self.limit_nano_usd + raised, AMOUNT_NANO_USD_MAX)


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
    """All budgets and rate limits of one org and its own prices, under `redis_keys.spending_policy(org_id)`."""

    version: int
    org_id: str
    budgets: tuple[Budget, ...]
    rate_limits: tuple[RateLimit, ...] = ()
    prices: dict[str, tuple[Price, ...]] = {}
    """By public model name, each list ordered by `effective_at`. Where one is in force, it goes before the price table's."""
    unpriced: Unpriced | None = None
    """None: as the gateway's settings say."""
    unguarded_nano_usd: int | None = None
    """While Redis is away, so that no ceiling can be asked: what each gateway worker lets through of the org in one outage, by the
    most that requests can cost. None: nothing."""
    queue_weight: int = QUEUE_WEIGHT_USUAL
    """Where a model's servers are full, each org that waits is given work in proportion to its weight, 1 to `QUEUE_WEIGHT_MAX`."""


class ReservationClaim(msgspec.Struct, frozen=True, kw_only=True):
    """For whom a reservation was made: what billing books by, should its gateway never say what became of it."""

    project_id: str
    api_key_id: str
    user_id: str | None
    service_account_id: str | None
    model: str
    budgets: tuple[str, ...]
    """Ids of the budgets that hold it."""


class WindowPart(NamedTuple):
    """A stretch of time that is counted by itself: a window of the calendar, or one of the many that a rolling one consists of."""

    id: str
    """Part of its counter's key, so nothing ever needs resetting: `2026-11-23`, `2026-W48`, `2026-11`, `total`; of a rolling window
    the hour in UTC at which it begins, `2026-11-23T18`."""
    start: datetime | None
    """Its first moment, in UTC; None: it never began."""
    end: datetime | None
    """The first moment after it; None: it never ends."""


_ROLLING: dict[Window, tuple[int, int]] = {
    "rolling_24h": (86_400, 3_600),
    "rolling_7d": (7 * 86_400, 6 * 3_600),
    "rolling_30d": (30 * 86_400, 86_400),
}
"""Seconds that a rolling window is long, and that each of its parts is. All of them begin at full hours in UTC, as balances do."""
COUNTER_KEPT_S: dict[Window, int] = {
    "day": 3 * 86_400,
    "week": 15 * 86_400,
    "month": 45 * 86_400,
    "total": 0,
    "rolling_24h": 4 * 86_400,
    "rolling_7d": 10 * 86_400,
    "rolling_30d": 33 * 86_400,
}
"""How long a counter is kept after its first use: well past the time in which it is asked. 0 is for ever."""


def is_rolling(window: Window) -> bool:
    """Whether a window moves on with the time, and has no time zone."""
    return window in _ROLLING


def window_parts(window: Window, at: float, time_zone: str = UTC_ZONE) -> tuple[WindowPart, ...]:
    """What a window counts at a time in Unix seconds, the part that the time falls in first and the oldest last.

    One part, but for a rolling window. Of that a part is left out only when all of it was a whole length ago. So what is counted is
    never less than the last 24 hours (7, 30 days), and up to one part more.
    """
    if window in _ROLLING:
        length_s, part_s = _ROLLING[window]
        newest = int(at // part_s)
        return tuple(
            _rolling_part(number * part_s, part_s) for number in range(newest, newest - length_s // part_s - 1, -1)
        )
    return (WindowPart(_calendar_id(window, at, time_zone), *_calendar_bounds(window, at, time_zone)),)


def window_id(window: Window, at: float, time_zone: str = UTC_ZONE) -> str:
    """The name of the part that a time in Unix seconds falls in: what is spent then is counted there."""
    return window_parts(window, at, time_zone)[0].id


def window_start(window: Window, at: float, time_zone: str = UTC_ZONE) -> datetime | None:
    """From when on spending counts in the window at a time in Unix seconds (in UTC); None for `total`, which has no beginning."""
    return window_parts(window, at, time_zone)[-1].start


def window_end(window: Window, at: float, time_zone: str = UTC_ZONE) -> datetime | None:
    """When the next window begins (in UTC); None for `total`, which has no end, and for those that roll."""
    return None if window in _ROLLING else window_parts(window, at, time_zone)[0].end


def _rolling_part(start_s: int, length_s: int) -> WindowPart:
    start = datetime.fromtimestamp(start_s, UTC)
    return WindowPart(start.strftime("%Y-%m-%dT%H"), start, start + timedelta(seconds=length_s))


def _calendar_id(window: Window, at: float, time_zone: str) -> str:
    moment = datetime.fromtimestamp(at, _zone(time_zone))
    match window:
        case "day":
            return moment.strftime("%Y-%m-%d")
        case "week":
            return moment.strftime("%G-W%V")
        case "month":
            return moment.strftime("%Y-%m")
        case _:
            return window


def _calendar_bounds(window: Window, at: float, time_zone: str) -> tuple[datetime | None, datetime | None]:
    first = _first_day(window, at, time_zone)
    match window:
        case _ if first is None:
            return None, None
        case "day":
            following = first + timedelta(days=1)
        case "week":
            following = first + timedelta(days=7)
        case _:
            following = (first + timedelta(days=31)).replace(day=1)
    return _midnight(first, time_zone), _midnight(following, time_zone)


def _first_day(window: Window, at: float, time_zone: str) -> date | None:
    day = datetime.fromtimestamp(at, _zone(time_zone)).date()
    match window:
        case "day":
            return day
        case "week":
            return day - timedelta(days=day.weekday())
        case "month":
            return day.replace(day=1)
        case _:
            return None


def _midnight(day: date, time_zone: str) -> datetime:
    """The first moment of a day, also where the clock jumps over midnight (the moment of the jump) or strikes it twice."""
    return datetime.combine(day, time(), _zone(time_zone)).astimezone(UTC)


def _zone(name: str) -> tzinfo:
    return UTC if name == UTC_ZONE else ZoneInfo(name)

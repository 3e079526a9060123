"""What gateways tell one another of the work that orgs were given: sums in windows of time, in Redis, that all add to and all read.

It takes one hash a model and window, however many workers there are. A worker that knew only its own part of an org's requests
would take a busy org for a modest one. And they tell how many backends they want kept free: the most that any of them does is what
all do, since a place that one keeps free is worth nothing where another fills it.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from ias.gateway.routing.fair_queue import RECENT_S

WINDOW_S = 2
WINDOWS = 3
"""That count, the present one included. What is older has faded to an eighth."""
ORGS_TOLD_MAX = 64
"""Of each worker and model at a time: those who were given most."""
_EXCHANGE_S = 1.0
_EXCHANGE_WAITING_S = 0.25


class Kept(NamedTuple):
    """How many of a model's backends all gateways together keep free for orgs that take less than their part."""

    most: int
    """As many as any of them needs."""
    surely: int
    """As many as were kept all the time: everybody has heard of these."""


def exchange_every_s(waiting: int) -> float:
    """How often a gateway tells and hears; more often while requests wait, for then it counts."""
    return _EXCHANGE_WAITING_S if waiting else _EXCHANGE_S


def window_of(unix_s: float) -> int:
    """The window that a time is in."""
    return int(unix_s) // WINDOW_S


def windows_at(unix_s: float) -> Sequence[int]:
    """Those that count at a time, the present one first."""
    return range(window_of(unix_s), window_of(unix_s) - WINDOWS, -1)


def kept_windows_at(unix_s: float) -> Sequence[int]:
    """Those that count for what is kept free."""
    return windows_at(unix_s)[:2]


def add_windows(windows: Mapping[int, Mapping[str, int]], unix_s: float) -> dict[str, float]:
    """What each org was given lately, work of older windows counting less."""
    given: dict[str, float] = {}
    for window, told in windows.items():
        age_s = max(0.0, unix_s - (window + 0.5) * WINDOW_S)
        fades = 0.5 ** (age_s / RECENT_S)
        for name, work in told.items():
            given[name] = given.get(name, 0.0) + work * fades
    return given


def join_kept(windows: Mapping[int, Collection[int]], unix_s: float) -> Kept:
    """From what gateways have told in each window; that nobody has told anything yet in the present one says nothing."""
    present, before = (windows.get(window, ()) for window in kept_windows_at(unix_s))
    earlier = max(before, default=0)
    now = max(present, default=earlier)
    return Kept(max(earlier, now), min(earlier, now))

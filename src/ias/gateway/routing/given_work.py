"""What gateways tell one another of the work that orgs were given: sums in windows of time, in Redis, that all add to and all read.

It takes one hash a model and window, however many workers there are. A worker that knew only its own part of an org's requests
would take a busy org for a modest one, and keep other backends free than its neighbours do.
"""

from collections.abc import Iterable, Mapping

from ias.gateway.routing.fair_queue import RECENT_S

WINDOW_S = 2
WINDOWS = 3
"""That count, the present one included. What is older has faded to an eighth."""
ORGS_TOLD_MAX = 64
"""Of each worker and model in a second: those who were given most."""


def window_of(unix_s: float) -> int:
    """The window that a time is in."""
    return int(unix_s) // WINDOW_S


def windows_at(unix_s: float) -> Iterable[int]:
    """Those that count at a time, the present one first."""
    return range(window_of(unix_s), window_of(unix_s) - WINDOWS, -1)


def add_windows(windows: Mapping[int, Mapping[str, int]], unix_s: float) -> dict[str, float]:
    """What each org was given lately, work of older windows counting less."""
    given: dict[str, float] = {}
    for window, told in windows.items():
        age_s = max(0.0, unix_s - (window + 0.5) * WINDOW_S)
        fades = 0.5 ** (age_s / RECENT_S)
        for name, work in told.items():
            given[name] = given.get(name, 0.0) + work * fades
    return given

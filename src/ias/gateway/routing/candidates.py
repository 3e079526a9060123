"""Which of a model's backends may be chosen at a moment, and why the others may not.

The registry's word (enabled, draining, health, circuit, ramp) comes first; a worker's own experience puts a backend that has just
failed behind all others, and is all there is when the registry's word is missing or old.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from ias.contracts.backend_states import STALE_AFTER_S, BackendState, BackendStates
from ias.contracts.routes import Backend
from ias.gateway.routing.loads import Load
from ias.gateway.routing.strategies import Candidate

_RAMP_FIRST: Final = 0.1
_RAMP_STEP_S: Final = 1.0
_KV_CACHE_USAGE_MAX: Final = 0.85
"""A backend whose cache is fuller by its last metrics is given nothing more: it would soon have to put running answers aside and
compute them again, and comes to nothing else."""
_FOREVER: Final = float("inf")
_UNKNOWN: Final = BackendState(health="unknown", since=0)


class Tier(NamedTuple):
    """The backends of one tier that may be chosen, by group."""

    stable: tuple[Candidate, ...]
    canary: tuple[Candidate, ...]


class Survey(NamedTuple):
    """A model's backends at a moment."""

    tiers: tuple[Tier, ...]
    """The lowest first; those without a candidate are left out."""
    last_resort: tuple[Candidate, ...]
    """Failed a moment ago: an answer that may come is better than none."""
    cold: tuple[Backend, ...]
    """Asleep; they serve once woken."""
    reasons: Mapping[str, str]
    """Why the others may not be chosen, by id."""
    valid_until: float
    """When something will have changed by itself, in `now_s`'s time."""


def fresh_states(document: BackendStates | None, unix_s: float) -> Mapping[str, BackendState]:
    """What the registry knows of backends; nothing where that is missing or too old to be believed."""
    if document is None or unix_s - document.written_at > STALE_AFTER_S:
        return {}
    return document.states


def survey_backends(
    backends: Sequence[Backend],
    states: Mapping[str, BackendState],
    loads: Mapping[str, Load],
    *,
    now_s: float,
    unix_s: float,
    sharers: int,
) -> Survey:
    """Look at all of a model's backends. `now_s` is the time that ejections go by; `sharers` workers share each backend."""
    found: dict[int, tuple[list[Candidate], list[Candidate]]] = {}
    last_resort: list[tuple[float, Candidate]] = []
    cold: list[Backend] = []
    reasons: dict[str, str] = {}
    valid_until = _FOREVER
    for backend in backends:
        state = states.get(backend.id, _UNKNOWN)
        reason = find_obstacle(backend, state)
        if reason is not None:
            reasons[backend.id] = reason
            if reason == "cold":
                cold.append(backend)
            continue
        load = loads[backend.id]
        candidate = _make_candidate(backend, state, load, unix_s=unix_s, sharers=sharers)
        if state.ramps_until is not None and state.ramps_until > unix_s:
            valid_until = min(valid_until, now_s + _RAMP_STEP_S)
        if load.ejected_until > now_s:
            valid_until = min(valid_until, load.ejected_until)
            last_resort.append((load.ejected_until, candidate))
            reasons[backend.id] = "failed_recently"
            continue
        found.setdefault(backend.tier, ([], []))[backend.group == "canary"].append(candidate)
    return Survey(
        tiers=tuple(Tier(tuple(found[tier][0]), tuple(found[tier][1])) for tier in sorted(found)),
        last_resort=tuple(candidate for _, candidate in sorted(last_resort, key=lambda pair: pair[0])),
        cold=tuple(cold),
        reasons=reasons,
        valid_until=valid_until,
    )


def find_obstacle(backend: Backend, state: BackendState) -> str | None:
    """Why the backend takes nothing; None when it may."""
    if not backend.enabled:
        return "disabled"
    if backend.draining:
        return "draining"
    if backend.weight <= 0:
        return "no_weight"
    if state.health in ("unready", "cold"):
        return state.health
    return "circuit_open" if state.circuit == "open" else None


def _make_candidate(backend: Backend, state: BackendState, load: Load, *, unix_s: float, sharers: int) -> Candidate:
    requests_max = _FOREVER
    if backend.concurrency_max is not None:
        requests_max = float(max(1, backend.concurrency_max // sharers))
    if state.circuit == "half_open":
        requests_max = 1.0
    if state.kv_cache_usage is not None and state.kv_cache_usage > _KV_CACHE_USAGE_MAX:
        requests_max = 1.0
    return Candidate(
        load,
        weight=backend.weight * _ramp(state, unix_s),
        requests_max=requests_max,
        others_waiting=max(0, (state.waiting or 0) - load.requests),
    )


def _ramp(state: BackendState, unix_s: float) -> float:
    """Share of the weight of a backend that has recovered a moment ago: from a tenth, when it did, to the whole."""
    if state.ramps_until is None or state.ramps_until <= unix_s:
        return 1.0
    left = (state.ramps_until - unix_s) / max(1, state.ramps_until - state.since)
    return 1.0 - (1.0 - _RAMP_FIRST) * min(1.0, left)

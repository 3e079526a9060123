"""Which ceilings a request is under, budgets and rate limits, worked out once per caller, model and window.

The names of budgets' counters carry their window; a rate limit's bucket knows by itself what time has made of it. A rolling budget
has a counter for each part of its window: a request is counted in the newest one, and asks all of them.
"""

import math
from typing import NamedTuple

import msgspec

from ias.contracts import redis_keys
from ias.contracts.api_keys import KeyRecord
from ias.contracts.spending import (
    COUNTER_KEPT_S,
    Budget,
    RateLimit,
    ReservationClaim,
    ScopeKind,
    SpendingPolicy,
    WindowPart,
    is_rolling,
    window_parts,
)
from ias.gateway.redis_connection import pack
from ias.gateway.script_calls import RESTORE, ReserveCall


class AdmissionPlan(NamedTuple):
    """The budgets and rate limits in scope, in the order of the script's keys."""

    budgets: tuple[Budget, ...]
    limits: tuple[RateLimit, ...]
    call: ReserveCall
    """Asks all of them at once."""
    counts_tokens: bool
    """Whether one of the limits is on tokens."""
    is_settled: bool
    """Whether a request leaves something to settle: an amount, tokens to correct, a place to give back."""
    counters: tuple[str, ...]
    """The budgets' keys in Redis, in which the request is counted."""
    claim: bytes
    """For whom reservations are made."""
    valid_from: float
    """Unix seconds at which the last of the budgets' windows (of a rolling one: its newest part) began."""
    valid_until: float
    """Unix seconds at which the first of the budgets' windows (of a rolling one: its newest part) or raises ends."""

    @classmethod
    def build(cls, policy: SpendingPolicy | None, key: KeyRecord, model: str, now: float) -> "AdmissionPlan":
        """The plan for one caller and model at a time in Unix seconds."""
        budgets: tuple[Budget, ...] = ()
        limits: tuple[RateLimit, ...] = ()
        if policy is not None:
            budgets = tuple(b for b in policy.budgets if _is_in_scope(b.scope_kind, b.scope_id, key, model))
            limits = tuple(r for r in policy.rate_limits if _is_in_scope(r.scope_kind, r.scope_id, key, model))
        metrics = {limit.metric for limit in limits}
        is_settled = bool(budgets) or not metrics.isdisjoint(("tokens_per_minute", "concurrency"))
        parts = [window_parts(budget.window, now, budget.time_zone) for budget in budgets]
        counters = tuple(_counter(key.org_id, budget, own[0]) for budget, own in zip(budgets, parts, strict=True))
        rolling = RollingParts.find(key.org_id, budgets, parts)
        claim = msgspec.json.encode(
            ReservationClaim(
                project_id=key.project_id,
                api_key_id=key.key_id,
                user_id=key.user_id,
                service_account_id=key.service_account_id,
                model=model,
                budgets=tuple(budget.id for budget in budgets),
            )
        )
        return cls(
            budgets=budgets,
            limits=limits,
            call=ReserveCall(
                key.org_id,
                (*counters, *(redis_keys.rate_limit(key.org_id, limit.id) for limit in limits), *rolling.keys),
                claim,
                (
                    str(len(budgets)),
                    "2" if rolling.keys else "1" if is_settled else "0",
                    *(argument for budget in budgets for argument in budget_arguments(budget, now)),
                    *(argument for limit in limits for argument in (limit.metric, str(limit.limit))),
                    *rolling.arguments,
                ),
            ),
            counts_tokens="tokens_per_minute" in metrics,
            is_settled=is_settled,
            counters=counters,
            claim=claim,
            valid_from=max((newest.start.timestamp() for newest, *_ in parts if newest.start is not None), default=0.0),
            valid_until=_find_end(budgets, parts, now),
        )


def pack_restore(plan: AdmissionPlan, org_id: str, request_id: str, amount_nano_usd: int, lifetime_s: int) -> bytes:
    """The call that holds again what a request held in a Redis that may have lost it."""
    keys = (redis_keys.reservation(org_id, request_id), redis_keys.reservation_deadlines(org_id), *plan.counters)
    times = (COUNTER_KEPT_S[budget.window] for budget in plan.budgets)
    return pack("EVALSHA", RESTORE.sha, len(keys), *keys, request_id, amount_nano_usd, lifetime_s, plan.claim, *times)


class RollingParts(NamedTuple):
    """What the script is told of the rolling budgets besides what it is told of all.

    A request may be asked for late: its body took long, or its gateway's clock is slow. What others were let through in the part
    that follows is asked, too, so that both together are not more than the limit. Nobody is later than a part is long.
    """

    keys: tuple[str, ...] = ()
    """The counters of all parts but the request's own, budget by budget, the newer before the older."""
    arguments: tuple[str, ...] = ()

    @classmethod
    def find(cls, org_id: str, budgets: tuple[Budget, ...], parts: list[tuple[WindowPart, ...]]) -> "RollingParts":
        """Of budgets and the parts of their windows."""
        keys: list[str] = []
        told: list[str] = []
        for index, (budget, (newest, *earlier)) in enumerate(zip(budgets, parts, strict=True), start=1):
            if not is_rolling(budget.window) or newest.start is None or newest.end is None:
                continue
            following = window_parts(budget.window, newest.end.timestamp())[0]
            keys += [_counter(org_id, budget, part) for part in (following, *earlier)]
            moves_on_ms, part_ms = newest.end.timestamp() * 1000, (newest.end - newest.start).total_seconds() * 1000
            told.append(f"{index} {1 + len(earlier)} {moves_on_ms:.0f} {part_ms:.0f}")
        return cls(tuple(keys), (",".join(reversed(told)),) if told else ())


def _counter(org_id: str, budget: Budget, part: WindowPart) -> str:
    return redis_keys.budget_counter(org_id, budget.id, part.id)


def budget_arguments(budget: Budget, now: float) -> tuple[str, str]:
    """What the script is told of each budget: its limit and how long its counter is kept."""
    limit = "" if budget.mode == "alert" else str(budget.limit_at(now))
    return f"~{limit}" if budget.mode == "soft" else limit, str(COUNTER_KEPT_S[budget.window])


def _is_in_scope(kind: ScopeKind, scope_id: str, key: KeyRecord, model: str) -> bool:
    match kind:
        case "org":
            return scope_id == key.org_id
        case "project":
            return scope_id == key.project_id
        case "api_key":
            return scope_id == key.key_id
        case "user":
            return key.user_id is not None and scope_id == key.user_id
        case "model":
            return scope_id == model


def _find_end(budgets: tuple[Budget, ...], parts: list[tuple[WindowPart, ...]], now: float) -> float:
    ends = [newest.end.timestamp() for newest, *_ in parts if newest.end is not None]
    ends += [one.expires_at for b in budgets for one in b.raises if one.expires_at > now]
    return min(ends, default=math.inf)

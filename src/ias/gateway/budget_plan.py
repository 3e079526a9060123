"""Which budgets a request counts in, worked out once per caller, model and day: the counters' names carry their window."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from ias.contracts import redis_keys
from ias.contracts.api_keys import KeyRecord
from ias.contracts.spending import Budget, BudgetPolicy, Window, window_id
from ias.gateway.script_calls import ReserveCall

_TTL_S: dict[Window, int] = {"day": 3 * 86_400, "week": 15 * 86_400, "month": 45 * 86_400, "total": 0}
"""How long a counter is kept after its first use: well past the end of its window. 0 is for ever."""


class BudgetPlan(NamedTuple):
    """The budgets in scope, in the order of the script's counters."""

    budgets: tuple[Budget, ...]
    call: ReserveCall
    """Reserves in the counters of these budgets."""
    valid_until: float
    """Unix seconds of the next midnight in UTC: every window begins at one."""

    @classmethod
    def build(cls, policy: BudgetPolicy | None, key: KeyRecord, model: str, now: float) -> "BudgetPlan":
        """The plan for one caller and model at a time in Unix seconds."""
        budgets = tuple(b for b in policy.budgets if _is_in_scope(b, key, model)) if policy is not None else ()
        arguments: list[str] = []
        for budget in budgets:
            arguments.append(str(budget.limit_nano_usd) if budget.mode == "hard" else "")
            arguments.append(str(_TTL_S[budget.window]))
        counters = tuple(redis_keys.budget_counter(key.org_id, b.id, window_id(b.window, now)) for b in budgets)
        return cls(
            budgets=budgets,
            call=ReserveCall(key.org_id, counters, tuple(arguments)),
            valid_until=_next_midnight(now),
        )


def _is_in_scope(budget: Budget, key: KeyRecord, model: str) -> bool:
    match budget.scope_kind:
        case "org":
            return budget.scope_id == key.org_id
        case "project":
            return budget.scope_id == key.project_id
        case "api_key":
            return budget.scope_id == key.key_id
        case "user":
            return key.user_id is not None and budget.scope_id == key.user_id
        case "model":
            return budget.scope_id == model


def _next_midnight(now: float) -> float:
    today = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (today + timedelta(days=1)).timestamp()

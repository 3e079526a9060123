"""What clients hear of a budget that refuses: which one, what it has left, and when it has room again."""

from datetime import UTC, datetime, timedelta

from ias.contracts.money import format_usd
from ias.contracts.permissions import ROLE_PERMISSIONS, Permission
from ias.contracts.spending import Budget, window_end
from ias.gateway.errors import DO_NOT_RETRY, Refusal

_ROLES = [role.value for role, granted in ROLE_PERMISSIONS.items() if Permission.BUDGETS_WRITE in granted]
_WHOM_TO_ASK = f"Somebody who is {', '.join(_ROLES[:-1])} or {_ROLES[-1]}"


def over_budget(budget: Budget, now: float, *, asked_nano_usd: int, left_nano_usd: int, wait_ms: int) -> Refusal:
    """429: a budget does not have what the request might cost. Clients are asked not to try again by themselves.

    `now` is the request's time in Unix seconds. `wait_ms`: after so long a rolling budget has room for it at the latest; below 0
    that is never, or the budget is bound to the calendar.
    """
    left = max(left_nano_usd, 0)
    text = (
        f"You exceeded your current quota: a budget of this {budget.scope_kind.replace('_', ' ')} has {format_usd(left)} USD left, "
        "which is less than this request may cost."
    )
    headers = DO_NOT_RETRY + b"x-ias-remaining-nano-usd: %d\r\n" % left
    room_at = _find_room(budget, now, asked_nano_usd, wait_ms)
    if room_at is not None:
        wait_s = max(1, -int((now - room_at.timestamp()) // 1))
        headers += b"retry-after: %d\r\n" % wait_s
        text += f" There is room for it again by {room_at:%Y-%m-%dT%H:%M:%SZ}."
    needs_override = budget.at_limit == "require_override"
    if needs_override:
        text += f" {_WHOM_TO_ASK} of your organization may raise the budget {budget.id} for a while."
    return Refusal(
        429,
        text,
        kind="insufficient_quota",
        code="budget_override_required" if needs_override else "insufficient_quota",
        headers=headers,
        denied_by=f"budget:{budget.id}",
    )


def _find_room(budget: Budget, now: float, asked_nano_usd: int, wait_ms: int) -> datetime | None:
    """When the request fits at the latest, if nothing else is spent meanwhile; None where that is never, or nobody knows."""
    if wait_ms >= 0:
        return datetime.fromtimestamp(now, UTC) + timedelta(milliseconds=wait_ms, seconds=1)
    end = window_end(budget.window, now, budget.time_zone)
    if end is None:
        return None
    limit = budget.limit_at(end.timestamp())
    return end if limit > 0 and (budget.mode == "soft" or asked_nano_usd <= limit) else None

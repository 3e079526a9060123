"""Budgets: ceilings on what a scope may spend in a window."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from redis.exceptions import RedisError
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.billing.core.amounts import parse_amount
from ias.billing.core.counters import Counters, Spend
from ias.billing.core.publishing import Publishing
from ias.billing.core.scopes import check_scope_id
from ias.billing.core.spending_settings import check_time_zone
from ias.billing.store import budgets, published_documents
from ias.billing.store.budget_raises import list_active_raises
from ias.billing.store.budgets import Budget
from ias.billing.store.spending_settings import get_settings
from ias.contracts import redis_keys
from ias.contracts.ids import uuid7
from ias.contracts.money import format_usd
from ias.contracts.spending import UTC_ZONE, AtLimit, Mode, ScopeKind, Window, is_rolling
from ias.kit.access import OrgScope
from ias.kit.audit import Change
from ias.kit.database import Database
from ias.kit.outbox import append
from ias.kit.problems import ConflictError, FieldError, ForbiddenError, InvalidError, NotFoundError
from ias.kit.writes import after_commit, check_version

BUDGETS_PER_ORG_MAX = 1_000
"""Every admission of the org reads its policy."""

BUDGETS_PER_SCOPE_MAX = 20
ROLLING_PER_SCOPE_MAX = 3
"""A request asks the counters of all budgets of its scopes in one call of Redis, which serves nobody else meanwhile: without a
bound one org could stop all others. A rolling budget has some thirty counters."""


@dataclass(frozen=True, slots=True)
class NewBudget:
    """A budget that is asked for."""

    scope_kind: ScopeKind
    scope_id: str
    window: Window
    limit_usd: str
    mode: Mode
    at_limit: AtLimit
    time_zone: str | None
    """None: as the org's settings say. A rolling window has none."""
    alert_percents: Sequence[int] = ()


class Budgets:
    """Creates, lists, changes and deletes budgets, and tells the gateways after every change.

    What an administrator of the platform sets for an org, the org neither changes nor deletes.
    """

    def __init__(self, database: Database, publishing: Publishing, counters: Counters) -> None:
        self._database = database
        self._publishing = publishing
        self._counters = counters

    async def create(self, scope: OrgScope, new: NewBudget) -> Budget:
        """Add a budget. What its scope spent in the window already counts from the start.

        Raises:
            InvalidError: the limit is not an amount, the scope's id has not the form of its kind, or there is no such time zone,
                or one for a window that rolls.
            ConflictError: the org or the scope has as many budgets as it may.
        """
        now = datetime.now(UTC)
        org_id = UUID(scope.org_id)
        async with self._database.transaction() as connection:
            settings = await get_settings(connection, org_id)
        budget = Budget(
            id=uuid7(),
            org_id=org_id,
            scope_kind=new.scope_kind,
            scope_id=check_scope_id(scope, new.scope_kind, new.scope_id),
            window=new.window,
            limit_nano_usd=parse_amount(new.limit_usd, "/limit_usd"),
            mode=new.mode,
            at_limit=new.at_limit,
            time_zone=_find_time_zone(new, settings.time_zone),
            alert_percents=tuple(sorted(set(new.alert_percents))),
            set_by_platform=scope.actor.platform_admin,
            version=1,
            created_at=now,
            updated_at=now,
        )
        async with self._database.transaction() as connection:
            await published_documents.raise_version(connection, _policy_key(budget), budget.org_id)
            if await budgets.count_budgets(connection, budget.org_id) >= BUDGETS_PER_ORG_MAX:
                raise ConflictError(f"An org has at most {BUDGETS_PER_ORG_MAX} budgets.", code="too_many_budgets")
            await _check_room_in_scope(connection, budget)
            await budgets.insert_budget(connection, budget)
            change = Change("budget.create", budget.id, budget.org_id, after=_describe(budget))
            await append(connection, "billing", scope.cause, change)
        await self._publishing.publish_policy_or_leave_it(budget.org_id)
        return budget

    async def get(self, budget_id: UUID) -> Budget:
        """A budget of whichever org: the caller still has to show that they may see it.

        Raises:
            NotFoundError: there is none.
        """
        async with self._database.transaction() as connection:
            budget = await budgets.find_budget(connection, budget_id)
        if budget is None:
            raise NotFoundError
        return budget

    async def list(self, scope: OrgScope, *, before: UUID | None, limit: int) -> list[Budget]:
        """The org's budgets, newest first."""
        async with self._database.transaction() as connection:
            return await budgets.list_budgets(connection, UUID(scope.org_id), before=before, limit=limit)

    async def list_of_scopes(self, scope: OrgScope, scopes: Collection[tuple[ScopeKind, str]]) -> Sequence[Budget]:
        """The budgets of some of the org's scopes, kind and id, newest first."""
        async with self._database.transaction() as connection:
            return await budgets.list_budgets_of_scopes(connection, UUID(scope.org_id), scopes)

    async def change(
        self,
        scope: OrgScope,
        budget: Budget,
        *,
        limit_usd: str | None,
        mode: Mode | None,
        at_limit: AtLimit | None,
        alert_percents: Sequence[int] | None,
    ) -> Budget:
        """Change the limit, what happens at it, or the thresholds; what was spent stays counted.

        Raises:
            InvalidError: the limit is not an amount.
            ForbiddenError: the platform set it, and the caller is not the platform's.
            NotFoundError: the budget is gone.
            PreconditionFailedError: the change is meant for another version of it.
        """
        values: dict[str, object] = {}
        if limit_usd is not None:
            values["limit_nano_usd"] = parse_amount(limit_usd, "/limit_usd")
        if mode is not None:
            values["mode"] = mode
        if at_limit is not None:
            values["at_limit"] = at_limit
        if alert_percents is not None:
            values["alert_percents"] = tuple(sorted(set(alert_percents)))
        return await self._store(scope, budget, values)

    async def delete(self, scope: OrgScope, budget: Budget) -> None:
        """Stop enforcing a budget. Raises as `change` does."""
        now = datetime.now(UTC)
        await self._store(scope, budget, {"deleted_at": now})

        async def forget() -> None:
            try:
                await self._counters.forget(budget, now)
            except (RedisError, OSError):
                pass  # the counter stays until its window is over; nobody reads it

        await after_commit(forget)

    async def read_spend(self, listed: Sequence[Budget]) -> Sequence[Spend | None]:
        """What each budget's window says; None for all of them while Redis cannot be asked."""
        try:
            spent = await self._counters.read(listed, datetime.now(UTC))
        except (RedisError, OSError):
            return [None] * len(listed)
        return [
            await self._counters.foresee(budget) if budget.counted_from is None else spend
            for budget, spend in zip(listed, spent, strict=True)
        ]

    async def read_limits(self, listed: Sequence[Budget]) -> dict[UUID, int]:
        """The limit of each budget of one org by now, in nano-USD, with the raises that are in force."""
        now = datetime.now(UTC)
        if not listed:
            return {}
        async with self._database.transaction() as connection:
            raises = await list_active_raises(connection, listed[0].org_id, now)
        return {budget.id: budget.published(raises[budget.id]).limit_at(now.timestamp()) for budget in listed}

    async def _store(self, scope: OrgScope, budget: Budget, values: dict[str, object]) -> Budget:
        if scope.org_id != str(budget.org_id):
            raise NotFoundError
        async with self._database.transaction() as connection:
            await published_documents.raise_version(connection, _policy_key(budget), budget.org_id)
            before = await budgets.find_budget(connection, budget.id)
            if before is None:
                raise NotFoundError
            check_version(before.version)
            if before.set_by_platform and not scope.actor.platform_admin:
                detail = "The platform set this budget, and alone changes it."
                raise ForbiddenError(detail, code="set_by_platform", org_id=scope.org_id)
            if all(getattr(before, name) == value for name, value in values.items()):
                return before
            changed = await budgets.change_budget(connection, before, **values)
            await append(connection, "billing", scope.cause, _change(before, changed))
        await self._publishing.publish_policy_or_leave_it(budget.org_id)
        return changed


async def _check_room_in_scope(connection: AsyncConnection, new: Budget) -> None:
    windows = await budgets.list_windows_of_scope(connection, new.org_id, new.scope_kind, new.scope_id)
    if len(windows) >= BUDGETS_PER_SCOPE_MAX:
        raise ConflictError(f"A scope has at most {BUDGETS_PER_SCOPE_MAX} budgets.", code="too_many_budgets")
    if is_rolling(new.window) and sum(map(is_rolling, windows)) >= ROLLING_PER_SCOPE_MAX:
        raise ConflictError(f"A scope has at most {ROLLING_PER_SCOPE_MAX} rolling budgets.", code="too_many_budgets")


def _find_time_zone(new: NewBudget, usual: str) -> str:
    if not is_rolling(new.window):
        return usual if new.time_zone is None else check_time_zone(new.time_zone)
    if new.time_zone is not None:
        problem = FieldError(pointer="/time_zone", detail="A rolling window has none.")
        raise InvalidError("/time_zone: a rolling window has none.", errors=[problem])
    return UTC_ZONE


def _change(before: Budget, after: Budget) -> Change:
    if after.deleted_at is not None:
        return Change("budget.delete", before.id, before.org_id, before=_describe(before))
    return Change("budget.update", before.id, before.org_id, _describe(before), _describe(after))


def _describe(budget: Budget) -> dict[str, object]:
    """What the audit log says of a budget."""
    return {
        "scope": {"kind": budget.scope_kind, "id": budget.scope_id},
        "window": budget.window,
        "limit_usd": format_usd(budget.limit_nano_usd),
        "mode": budget.mode,
        "at_limit": budget.at_limit,
        "time_zone": budget.time_zone,
        "alert_percents": list(budget.alert_percents),
        "set_by_platform": budget.set_by_platform,
    }


def _policy_key(budget: Budget) -> str:
    return redis_keys.spending_policy(str(budget.org_id))

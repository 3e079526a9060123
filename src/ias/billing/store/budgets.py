"""Budgets. A deleted one stays as a row, so that old decisions can still be explained."""

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, func, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.billing.store.budget_raises import BudgetRaise
from ias.billing.store.tables import BUDGETS
from ias.contracts import spending


@dataclass(frozen=True, slots=True)
class Budget:
    """A ceiling on what a scope of an org may spend in a window."""

    id: UUID
    org_id: UUID
    scope_kind: spending.ScopeKind
    scope_id: str
    window: spending.Window
    limit_nano_usd: int
    mode: spending.Mode
    at_limit: spending.AtLimit
    time_zone: str
    alert_percents: tuple[int, ...]
    """At which shares of the limit somebody is told."""
    set_by_platform: bool
    """By one of its administrators: then no org changes it."""
    version: int
    """Grows with every change of this row."""
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = None
    counted_from: datetime | None = None

    def window_id(self, moment: datetime) -> str:
        """The name of the window, of a rolling one the name of the part, that a moment falls in."""
        return spending.window_id(self.window, moment.timestamp(), self.time_zone)

    def window_start(self, moment: datetime) -> datetime | None:
        """From when on spending counts at a moment; None where all of it does."""
        return spending.window_start(self.window, moment.timestamp(), self.time_zone)

    def window_end(self, moment: datetime) -> datetime | None:
        """When the next window begins; None where none does, and where the window rolls."""
        return spending.window_end(self.window, moment.timestamp(), self.time_zone)

    def parts(self, moment: datetime) -> tuple[spending.WindowPart, ...]:
        """What is counted at a moment, each in a counter of its own, the newest first."""
        return spending.window_parts(self.window, moment.timestamp(), self.time_zone)

    def published(self, raises: Iterable[BudgetRaise] = ()) -> spending.Budget:
        """The form in which gateways know it."""
        return spending.Budget(
            id=str(self.id),
            scope_kind=self.scope_kind,
            scope_id=self.scope_id,
            window=self.window,
            limit_nano_usd=self.limit_nano_usd,
            mode=self.mode,
            time_zone=self.time_zone,
            raises=tuple(one.published() for one in raises),
            at_limit=self.at_limit,
        )


def _budget(row: RowMapping) -> Budget:
    return Budget(**{**row, "alert_percents": tuple(row["alert_percents"])})


async def insert_budget(connection: AsyncConnection, budget: Budget) -> None:
    """Add a budget."""
    await connection.execute(insert(BUDGETS).values(asdict(budget)))


async def count_budgets(connection: AsyncConnection, org_id: UUID) -> int:
    """How many budgets an org has."""
    query = select(func.count()).where(BUDGETS.c.org_id == org_id, BUDGETS.c.deleted_at.is_(None))
    return await connection.scalar(query) or 0


async def list_windows_of_scope(
    connection: AsyncConnection, org_id: UUID, scope_kind: spending.ScopeKind, scope_id: str
) -> list[spending.Window]:
    """The windows of the budgets that a scope of an org has, one for each."""
    query = select(BUDGETS.c.window).where(
        BUDGETS.c.org_id == org_id,
        BUDGETS.c.scope_kind == scope_kind,
        BUDGETS.c.scope_id == scope_id,
        BUDGETS.c.deleted_at.is_(None),
    )
    return list(await connection.scalars(query))


async def find_budget(connection: AsyncConnection, budget_id: UUID) -> Budget | None:
    """A budget that was not deleted."""
    query = select(BUDGETS).where(BUDGETS.c.id == budget_id, BUDGETS.c.deleted_at.is_(None))
    row = (await connection.execute(query)).mappings().one_or_none()
    return _budget(row) if row else None


async def get_budget_ever(connection: AsyncConnection, budget_id: UUID) -> Budget:
    """A budget that there is or was."""
    return _budget((await connection.execute(select(BUDGETS).where(BUDGETS.c.id == budget_id))).mappings().one())


async def list_budgets(
    connection: AsyncConnection, org_id: UUID, *, before: UUID | None = None, limit: int | None = None
) -> list[Budget]:
    """An org's budgets, newest first."""
    query = select(BUDGETS).where(BUDGETS.c.org_id == org_id, BUDGETS.c.deleted_at.is_(None))
    if before is not None:
        query = query.where(BUDGETS.c.id < before)
    rows = await connection.execute(query.order_by(BUDGETS.c.id.desc()).limit(limit))
    return [_budget(row) for row in rows.mappings()]


async def list_budgets_of_scopes(
    connection: AsyncConnection, org_id: UUID, scopes: Collection[tuple[spending.ScopeKind, str]]
) -> list[Budget]:
    """The budgets of some of an org's scopes, kind and id, newest first."""
    table = BUDGETS
    query = select(table).where(
        table.c.org_id == org_id, table.c.deleted_at.is_(None), tuple_(table.c.scope_kind, table.c.scope_id).in_(scopes)
    )
    return [_budget(row) for row in (await connection.execute(query.order_by(table.c.id.desc()))).mappings()]


async def list_all_budgets(
    connection: AsyncConnection, *, after: UUID | None = None, limit: int | None = None
) -> list[Budget]:
    """Every org's budgets, in the order they were made."""
    query = select(BUDGETS).where(BUDGETS.c.deleted_at.is_(None)).order_by(BUDGETS.c.id).limit(limit)
    if after is not None:
        query = query.where(BUDGETS.c.id > after)
    return [_budget(row) for row in (await connection.execute(query)).mappings()]


async def list_alerting_budgets(connection: AsyncConnection, *, after: UUID | None, limit: int) -> list[Budget]:
    """Every org's budgets that somebody is to be told of, in the order they were made, those whose counters are set up."""
    table = BUDGETS
    query = select(table).where(
        table.c.deleted_at.is_(None), table.c.alert_percents != [], table.c.counted_from.is_not(None)
    )
    if after is not None:
        query = query.where(table.c.id > after)
    return [_budget(row) for row in (await connection.execute(query.order_by(table.c.id).limit(limit))).mappings()]


async def list_orgs_with_uncounted_budgets(connection: AsyncConnection) -> list[UUID]:
    """The orgs with a budget whose counter was never set up."""
    query = select(BUDGETS.c.org_id).distinct().where(BUDGETS.c.counted_from.is_(None), BUDGETS.c.deleted_at.is_(None))
    return list((await connection.execute(query)).scalars())


async def change_budget(connection: AsyncConnection, budget: Budget, **values: Any) -> Budget:
    """Change columns of a budget; the budget as it then is, one version further."""
    change = (
        update(BUDGETS)
        .where(BUDGETS.c.id == budget.id)
        .values(**values, version=BUDGETS.c.version + 1, updated_at=func.now())
        .returning(*BUDGETS.c)
    )
    return _budget((await connection.execute(change)).mappings().one())


async def mark_counted(connection: AsyncConnection, budget_ids: Collection[UUID], moment: datetime) -> None:
    """Remember that the budgets' counters are set up, so that they may be enforced."""
    await connection.execute(
        update(BUDGETS)
        .where(BUDGETS.c.id.in_(list(budget_ids)), BUDGETS.c.counted_from.is_(None))
        .values(counted_from=moment)
    )

"""Raises: amounts on top of a budget's limit that end by themselves. A revoked one stays as a row."""

from collections import defaultdict
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.billing.store.tables import BUDGET_RAISES
from ias.contracts import spending


@dataclass(frozen=True, slots=True)
class BudgetRaise:
    """An amount on top of a budget's limit until `expires_at`, or until it was revoked."""

    id: UUID
    org_id: UUID
    budget_id: UUID
    amount_nano_usd: int
    reason: str
    expires_at: datetime
    """Full seconds."""
    created_at: datetime
    created_by: str
    revoked_at: datetime | None = None

    def published(self) -> spending.BudgetRaise:
        """The form in which gateways know it."""
        return spending.BudgetRaise(amount_nano_usd=self.amount_nano_usd, expires_at=int(self.expires_at.timestamp()))


async def insert_raise(connection: AsyncConnection, one: BudgetRaise) -> None:
    """Add a raise."""
    await connection.execute(insert(BUDGET_RAISES).values(asdict(one)))


async def find_raise(connection: AsyncConnection, budget_id: UUID, raise_id: UUID) -> BudgetRaise | None:
    """A raise of a budget, whether it is over or not."""
    table = BUDGET_RAISES
    query = select(table).where(table.c.budget_id == budget_id, table.c.id == raise_id)
    row = (await connection.execute(query)).mappings().one_or_none()
    return BudgetRaise(**row) if row else None


async def list_raises(
    connection: AsyncConnection, budget_id: UUID, *, before: UUID | None, limit: int
) -> list[BudgetRaise]:
    """A budget's raises, newest first, those that are over too."""
    table = BUDGET_RAISES
    query = select(table).where(table.c.budget_id == budget_id).order_by(table.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(table.c.id < before)
    return [BudgetRaise(**row) for row in (await connection.execute(query)).mappings()]


async def list_active_raises(
    connection: AsyncConnection, org_id: UUID | None, now: datetime
) -> dict[UUID, list[BudgetRaise]]:
    """The raises in force, of an org's budgets or of all (None), by budget."""
    table = BUDGET_RAISES
    query = select(table).where(table.c.revoked_at.is_(None), table.c.expires_at > now).order_by(table.c.id)
    if org_id is not None:
        query = query.where(table.c.org_id == org_id)
    found: dict[UUID, list[BudgetRaise]] = defaultdict(list)
    for row in (await connection.execute(query)).mappings():
        found[row["budget_id"]].append(BudgetRaise(**row))
    return found


async def revoke_raise(connection: AsyncConnection, raise_id: UUID) -> BudgetRaise:
    """End a raise now; the raise as it then is."""
    table = BUDGET_RAISES
    change = update(table).where(table.c.id == raise_id).values(revoked_at=func.now()).returning(table)
    return BudgetRaise(**(await connection.execute(change)).mappings().one())

"""Plans and their steps in PostgreSQL."""

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.gitops.store.tables import PLANS, STEPS

Action = Literal["create", "update", "delete", "unchanged", "leave"]
StepStatus = Literal["pending", "done", "failed"]
PlanStatus = Literal["planned", "failed", "applied"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is done about one budget."""

    position: int
    action: Action
    """`leave`: no document speaks of the budget, and pruning was not asked for."""
    name: str | None
    """The document's; None for a budget that no document speaks of."""
    budget_id: str | None
    """Billing's id; None for a budget that is yet to be created."""
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    status: StepStatus
    detail: str | None = None
    """Why it failed."""
    done_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The steps from what there was to what the documents declare."""

    id: UUID
    org_id: UUID
    status: PlanStatus
    prune: bool
    documents: list[dict[str, Any]]
    digest: str
    """SHA-256 of the steps: two plans with one digest do the same."""
    created_at: datetime
    created_by: str
    request_id: str
    applied_at: datetime | None
    applied_by: str | None
    steps: list[Step] = field(default_factory=list)


async def insert_plan(connection: AsyncConnection, plan: Plan) -> None:
    """Store a new plan with its steps."""
    values = asdict(plan)
    steps = values.pop("steps")
    await connection.execute(insert(PLANS).values(values))
    if steps:
        await connection.execute(insert(STEPS), [step | {"plan_id": plan.id} for step in steps])


async def find_plan(connection: AsyncConnection, plan_id: UUID) -> Plan | None:
    """The plan with its steps in order, of whichever org."""
    row = (await connection.execute(select(PLANS).where(PLANS.c.id == plan_id))).mappings().one_or_none()
    if row is None:
        return None
    columns = [column for column in STEPS.c if column is not STEPS.c.plan_id]
    steps = await connection.execute(select(*columns).where(STEPS.c.plan_id == plan_id).order_by(STEPS.c.position))
    return Plan(**row, steps=[Step(**step) for step in steps.mappings()])


async def list_plans(connection: AsyncConnection, org_id: UUID, *, after: UUID | None, limit: int) -> list[Plan]:
    """An org's plans without their steps, newest first, after an id."""
    query = select(PLANS).where(PLANS.c.org_id == org_id).order_by(PLANS.c.id.desc()).limit(limit)
    if after is not None:
        query = query.where(PLANS.c.id < after)
    return [Plan(**row) for row in (await connection.execute(query)).mappings()]


async def update_plan_status(
    connection: AsyncConnection, plan_id: UUID, status: PlanStatus, *, at: datetime, by: str
) -> None:
    """Note how an application ended."""
    await connection.execute(
        update(PLANS).where(PLANS.c.id == plan_id).values(status=status, applied_at=at, applied_by=by)
    )


async def update_step(connection: AsyncConnection, plan_id: UUID, step: Step) -> None:
    """Note how a step ended."""
    await connection.execute(
        update(STEPS)
        .where(STEPS.c.plan_id == plan_id, STEPS.c.position == step.position)
        .values(status=step.status, detail=step.detail, budget_id=step.budget_id, done_at=step.done_at)
    )

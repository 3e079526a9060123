"""`/billing/v1/reconciliations`: whether all books are one."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from ias.billing.api.parts import CursorsPart, ReconcilerPart
from ias.billing.core.reconciliation import Check
from ias.billing.store.reconciliations import Reconciliation
from ias.contracts.permissions import Permission
from ias.kit.authorization import Access, requires
from ias.kit.cursors import CursorText, Limit, Page
from ias.kit.routing import Router, in_steps
from ias.kit.web import Answer, Body

router = Router(prefix="/billing/v1/reconciliations", tags=["reconciliations"])


class ReconciliationBody(Body):
    """What to compare."""

    hours: int = Field(24, ge=1, le=24 * 62, description="How far back, with the hour that runs.")
    repair: bool = Field(False, description="Let counters in Redis that differ say what the ledger says.")


class DifferenceAnswer(Answer):
    """Two books that do not say the same."""

    check: Check = Field(
        description="What differs from the ledger: its hourly `balances`, analytics' `usage_records`, Redis' `counters`,"
        " `engines`' own counts of tokens; or analytics' `usage_rollups` from its records."
    )
    org_id: UUID | None = Field(description="Null for engines, which serve every org.")
    subject: str = Field(description="The hour, the budget and its window, or the server.")
    expected: dict[str, int]
    found: dict[str, int]
    missing: list[str] = Field(description="Requests that only the ledger has; the first twenty.")
    unknown: list[str] = Field(description="Requests that only the other book has; the first twenty.")
    repaired: bool


class ReconciliationAnswer(Answer):
    """One comparison. The books are one where there are no differences and nothing was skipped."""

    id: UUID
    started_at: datetime
    finished_at: datetime
    start: datetime
    end: datetime
    differences: list[DifferenceAnswer]
    skipped: list[str] = Field(description="What could not be compared, and why.")


@router.post(
    "", status_code=201, openapi_extra=in_steps("it reads for seconds, and each counter is repaired by itself")
)
async def reconcile(
    body: ReconciliationBody,
    access: Annotated[Access, requires(Permission.LEDGER_ADJUST)],  # noqa: ARG001  # the permission is all
    reconciler: ReconcilerPart,
) -> ReconciliationAnswer:
    """Compare the ledger with its projections, with analytics and with Redis, now."""
    return render_reconciliation(await reconciler.run(hours=body.hours, repair=body.repair))


@router.get("")
async def list_reconciliations(
    *,
    access: Annotated[Access, requires(Permission.LEDGER_ADJUST)],  # noqa: ARG001  # the permission is all
    reconciler: ReconcilerPart,
    cursors: CursorsPart,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[ReconciliationAnswer]:
    """What was compared so far, newest first."""
    runs = await reconciler.list_runs(before=cursors.decode(cursor, "reconciliations"), limit=limit + 1)
    return cursors.page([render_reconciliation(run) for run in runs], limit, "reconciliations")


def render_reconciliation(run: Reconciliation) -> ReconciliationAnswer:
    """A run on the wire."""
    return ReconciliationAnswer(
        id=run.id,
        started_at=run.started_at,
        finished_at=run.finished_at,
        start=run.start,
        end=run.end,
        differences=[DifferenceAnswer.model_validate(difference) for difference in run.differences],
        skipped=run.skipped,
    )

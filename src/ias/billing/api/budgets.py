"""`/billing/v1/budgets`."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from ias.billing.api.pages import OrgPage
from ias.billing.api.parts import BudgetsPart
from ias.billing.api.schemas import ScopeAnswer, ScopeBody, UsdText
from ias.billing.api.spending_settings import TimeZoneName
from ias.billing.core.budgets import NewBudget
from ias.billing.core.counters import Spend
from ias.billing.store.budgets import Budget
from ias.contracts.money import format_usd
from ias.contracts.permissions import Permission
from ias.contracts.spending import AtLimit, Mode, Window
from ias.kit.authorization import Access, requires
from ias.kit.cursors import Page
from ias.kit.routing import Router
from ias.kit.web import Answer, Body

router = Router(prefix="/billing/v1/budgets", tags=["budgets"])


AlertPercents = Annotated[
    list[Annotated[int, Field(ge=1, le=1000)]],
    Field(
        max_length=10,
        description="Shares of the limit at which the org's alert channels are told, once in a window each (of a rolling one: again"
        " when the hour, six hours or day in which it was told is no longer counted).",
    ),
]


class BudgetBody(Body):
    """A ceiling on what a scope may spend in a window.

    `hard` refuses what might exceed it; `soft` refuses once it is spent, so that what was in flight may exceed it; `alert`
    refuses nothing.
    """

    org_id: UUID
    scope: ScopeBody
    window: Window = Field(
        description="`day`, `week` (from Monday on) and `month` are those of the calendar in its time zone; `total` never ends;"
        " `rolling_24h`, `rolling_7d` and `rolling_30d` are the last so many hours or days at any moment, counted by the hour,"
        " by six hours and by the day in UTC, so that up to one of these more is counted."
    )
    time_zone: TimeZoneName | None = Field(
        None,
        description="A name of the IANA database; it never changes. Absent: as the org's spending settings say. A rolling window"
        " has none.",
    )
    limit_usd: UsdText
    mode: Mode
    at_limit: AtLimit = Field(
        "block",
        description="`block`: what is refused waits until the window has moved on, or the budget is changed. `require_override`:"
        " somebody may raise it for a while, and refusals say so (code `budget_override_required`).",
    )
    alert_percents: AlertPercents = Field(default_factory=list)


class BudgetChange(Body):
    """What may be changed of a budget; what is absent stays."""

    limit_usd: UsdText | None = None
    mode: Mode | None = None
    at_limit: AtLimit | None = None
    alert_percents: AlertPercents | None = None


class BudgetAnswer(Answer):
    """A budget and its current window. The figures are null while the counters cannot be read."""

    id: UUID
    org_id: UUID
    scope: ScopeAnswer
    window: Window
    time_zone: str
    limit_usd: str
    raised_limit_usd: str = Field(description="The limit with the raises that are in force.")
    mode: Mode
    at_limit: AtLimit
    alert_percents: list[int]
    set_by_platform: bool = Field(
        description="An administrator of the platform made it: they alone change and delete it. Raises, where `at_limit` lets there"
        " be any, are the org's to give."
    )
    window_id: str | None = Field(
        description="The current window, e.g. `2026-11`; of a rolling one the newest part, e.g. `2026-11-23T18`."
    )
    window_started_at: datetime | None = Field(description="From when on spending counts; null for `total`.")
    window_ends_at: datetime | None = Field(
        description="When the next window begins; null for `total` and for rolling ones."
    )
    spent_usd: str | None
    reserved_usd: str | None = Field(description="Held for requests that are being served.")
    remaining_usd: str | None = Field(description="What may still be reserved; never below zero.")
    version: int = Field(description="Grows with every change of the budget; spending does not change it.")
    created_at: datetime
    updated_at: datetime


@router.post("", status_code=201)
async def create_budget(
    body: BudgetBody,
    access: Annotated[Access, requires(Permission.BUDGETS_WRITE)],
    budgets: BudgetsPart,
) -> BudgetAnswer:
    """Bound what an org, project, API key, user or model of an org may spend. What was spent in the window already counts."""
    scope = access.in_org(str(body.org_id))
    budget = await budgets.create(
        scope,
        NewBudget(
            scope_kind=body.scope.kind,
            scope_id=body.scope.id,
            window=body.window,
            limit_usd=body.limit_usd,
            mode=body.mode,
            at_limit=body.at_limit,
            time_zone=body.time_zone,
            alert_percents=body.alert_percents,
        ),
    )
    return await _answer(budgets, budget)


@router.get("")
async def list_budgets(
    access: Annotated[Access, requires(Permission.BUDGETS_READ)], budgets: BudgetsPart, page: OrgPage
) -> Page[BudgetAnswer]:
    """An org's budgets, newest first."""
    return page.answer(await render_budgets(budgets, await page.read(access, budgets.list)))


@router.get("/{budget_id}")
async def get_budget(
    budget_id: UUID,
    access: Annotated[Access, requires(Permission.BUDGETS_READ)],
    budgets: BudgetsPart,
) -> BudgetAnswer:
    """A budget, with what its current window has left."""
    budget = await budgets.get(budget_id)
    access.in_org(str(budget.org_id))
    return await _answer(budgets, budget)


@router.patch("/{budget_id}")
async def change_budget(
    budget_id: UUID,
    body: BudgetChange,
    access: Annotated[Access, requires(Permission.BUDGETS_WRITE)],
    budgets: BudgetsPart,
) -> BudgetAnswer:
    """Change a budget's limit, and what happens at it. What was spent stays counted."""
    budget = await budgets.get(budget_id)
    scope = access.in_org(str(budget.org_id))
    changed = await budgets.change(scope, budget, **body.model_dump())
    return await _answer(budgets, changed)


@router.delete("/{budget_id}", status_code=204)
async def delete_budget(
    budget_id: UUID,
    access: Annotated[Access, requires(Permission.BUDGETS_WRITE)],
    budgets: BudgetsPart,
) -> None:
    """Stop enforcing a budget."""
    budget = await budgets.get(budget_id)
    await budgets.delete(access.in_org(str(budget.org_id)), budget)


async def _answer(budgets: BudgetsPart, budget: Budget) -> BudgetAnswer:
    return (await render_budgets(budgets, [budget]))[0]


async def render_budgets(budgets: BudgetsPart, rows: Sequence[Budget]) -> list[BudgetAnswer]:
    """Budgets of one org, with their limits and what their windows have left."""
    limits = await budgets.read_limits(rows)
    spent = await budgets.read_spend(rows)
    return [_render(row, limits[row.id], spend) for row, spend in zip(rows, spent, strict=True)]


def _render(budget: Budget, limit_nano_usd: int, spend: Spend | None) -> BudgetAnswer:
    now = datetime.now(UTC)
    remaining = limit_nano_usd - spend.spent_nano_usd - spend.reserved_nano_usd if spend else 0
    return BudgetAnswer(
        id=budget.id,
        org_id=budget.org_id,
        scope=ScopeAnswer(kind=budget.scope_kind, id=budget.scope_id),
        window=budget.window,
        time_zone=budget.time_zone,
        limit_usd=format_usd(budget.limit_nano_usd),
        raised_limit_usd=format_usd(limit_nano_usd),
        mode=budget.mode,
        at_limit=budget.at_limit,
        alert_percents=list(budget.alert_percents),
        set_by_platform=budget.set_by_platform,
        window_started_at=budget.window_start(now),
        window_ends_at=budget.window_end(now),
        window_id=spend.window_id if spend else None,
        spent_usd=format_usd(spend.spent_nano_usd) if spend else None,
        reserved_usd=format_usd(spend.reserved_nano_usd) if spend else None,
        remaining_usd=format_usd(max(0, remaining)) if spend else None,
        version=budget.version,
        created_at=budget.created_at,
        updated_at=budget.updated_at,
    )

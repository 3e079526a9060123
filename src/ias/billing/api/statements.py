"""`/billing/v1/statements/export`: what an org was charged in a period, as CSV."""

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal, get_args
from uuid import UUID

from fastapi import Query
from fastapi.responses import StreamingResponse

from ias.billing.api.parts import StatementsPart
from ias.billing.core.statements import Key, Period, StatementLine, Statements
from ias.billing.store.ledger import LedgerEntry
from ias.contracts.money import format_usd
from ias.contracts.permissions import Permission
from ias.kit.access import OrgScope
from ias.kit.authorization import Access, requires
from ias.kit.csv_rows import guard_text, render_rows
from ias.kit.moments import Moment
from ias.kit.problems import FieldError, InvalidError
from ias.kit.routing import Router

router = Router(prefix="/billing/v1/statements", tags=["statements"])

_KEYS: tuple[Key, ...] = get_args(Key)
_COLUMNS: dict[Key, str] = {"day": "day", "project": "project_id", "api_key": "api_key_id", "model": "model"}
_FIGURES = ["requests", "input_tokens", "cached_input_tokens", "output_tokens"]
_AMOUNTS = ["usage_usd", "corrections_usd", "credits_usd", "total_usd"]
_ENTRY_TEXTS = ["id", "kind", "project_id", "api_key_id", "user_id", "service_account_id", "request_id", "endpoint"]
_ENTRY_TEXTS += ["model", "status", "outcome", "input_tokens", "cached_input_tokens", "output_tokens"]
_ENTRY_TEXTS += ["price_id", "price_version", "rating", "estimated"]
_FILE: dict[int | str, dict[str, Any]] = {200: {"description": "The statement.", "content": {"text/csv": {}}}}


@router.get("/export", response_class=StreamingResponse, responses=_FILE)
async def export_statement(
    *,
    access: Annotated[Access, requires(Permission.LEDGER_READ)],
    statements: StatementsPart,
    org_id: Annotated[UUID, Query()],
    month: Annotated[
        str | None,
        Query(pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])$", description="A month of the org's time zone, as `2026-11`."),
    ] = None,
    start: Annotated[Moment | None, Query(description="Entries from then on; with `end`, in place of `month`.")] = None,
    end: Annotated[Moment | None, Query(description="Entries before then, at most 366 days later.")] = None,
    by: Annotated[
        str,
        Query(
            max_length=100,
            description="What a line is for: some of `day`, `project`, `api_key`, `model`, with commas between; nothing for one"
            " line in all; or `entry` for every entry of the ledger.",
            examples=["project,model"],
        ),
    ] = "project,model",
) -> StreamingResponse:
    """What an org was charged, by when requests were admitted and corrections and credits booked. In the order of the columns."""
    scope = access.in_org(str(org_id))
    keys = _read_keys(by)
    period = await statements.find_period(scope, month=month, start=start, end=end)
    lines = _write_entries(statements, scope, period) if keys == "entry" else _write(statements, scope, period, keys)
    name = f"statement-{org_id}-{month or period.start.date().isoformat()}.csv"
    return StreamingResponse(
        lines, media_type="text/csv", headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )


def _read_keys(by: str) -> list[Key] | Literal["entry"]:
    if by == "entry":
        return "entry"
    asked = [name for name in by.split(",") if name]
    if unknown := set(asked) - set(_KEYS):
        detail = f"{', '.join(sorted(unknown))} is none of {', '.join(_KEYS)}; `entry` stands alone."
        raise InvalidError(f"by: {detail}", errors=[FieldError(pointer="by", detail=detail)])
    return [key for key in _KEYS if key in asked]


async def _write(statements: Statements, scope: OrgScope, period: Period, keys: list[Key]) -> AsyncIterator[str]:
    yield render_rows([[*(_COLUMNS[key] for key in keys), *_FIGURES, *_AMOUNTS]])
    async for batch in statements.sum(scope, period, keys):
        yield render_rows([[*map(guard_text, names), *_figures(line)] for names, line in batch])


def _figures(line: StatementLine) -> list[str]:
    amounts = [line.usage_nano_usd, line.corrections_nano_usd, line.credits_nano_usd]
    return [
        *(str(getattr(line, name)) for name in _FIGURES),
        *(format_usd(amount) for amount in [*amounts, sum(amounts)]),
    ]


async def _write_entries(statements: Statements, scope: OrgScope, period: Period) -> AsyncIterator[str]:
    yield render_rows([["occurred_at", *_ENTRY_TEXTS, "cost_usd", "reason"]])
    async for batch in statements.list_entries(scope, period):
        yield render_rows([_entry_cells(entry) for entry in batch])


def _entry_cells(entry: LedgerEntry) -> list[str]:
    values = (getattr(entry, name) for name in _ENTRY_TEXTS)
    texts = ["" if value is None else guard_text(str(value)) for value in values]
    moment = entry.occurred_at.isoformat().replace("+00:00", "Z")
    return [moment, *texts, format_usd(entry.cost_nano_usd), guard_text(entry.reason or "")]

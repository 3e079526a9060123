"""The audit log of an org, and that of the platform."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Query
from fastapi.responses import StreamingResponse
from pydantic import Field

from ias.contracts.events import ActorKind, AuditOutcome
from ias.contracts.permissions import Permission
from ias.identity.api.audit_files import MEDIA_TYPES, Format, write_csv, write_ndjson
from ias.identity.api.parts import OriginOf, Parts, PartsOf
from ias.identity.store.audit_log import AuditFilter
from ias.kit.audit import Origin
from ias.kit.authorization import Access, requires
from ias.kit.cursors import CursorText, Limit, Page
from ias.kit.moments import Moment
from ias.kit.routing import Router
from ias.kit.web import Answer

router = Router(prefix="/identity/v1", tags=["audit log"])

FilterText = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00]+$")]


class AuditEntryAnswer(Answer):
    """Something done or denied. `hash` covers the other fields and, by `previous_hash`, every entry of the chain before it."""

    id: UUID
    chain_id: UUID = Field(description="The org's id; the nil UUID for the platform's own entries.")
    org_id: UUID | None
    sequence: int
    occurred_at: datetime
    service: str
    actor_kind: ActorKind
    actor_id: str | None
    action: str = Field(description="`noun.verb` of what was done; of a denial the permission that was needed.")
    target_kind: str
    target_id: str
    outcome: AuditOutcome
    reason: str | None = Field(description="Of a denial: the `code` of the answer.")
    count: int = Field(description="Above 1 where equal denials were counted together.")
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str | None
    source_ip: str | None
    user_agent: str | None
    previous_hash: str
    hash: str


class AuditQuery(Answer):
    """Filters of the log. `start` is within, `end` is not."""

    service: FilterText | None = None
    actor_kind: ActorKind | None = None
    actor_id: FilterText | None = None
    action: FilterText | None = None
    target_kind: FilterText | None = None
    target_id: FilterText | None = None
    outcome: AuditOutcome | None = None
    reason: FilterText | None = None
    request_id: FilterText | None = None
    source_ip: FilterText | None = None
    start: Moment | None = None
    end: Moment | None = None


Reader = Annotated[Access, requires(Permission.AUDIT_READ)]
Wanted = Annotated[AuditQuery, Depends()]
FormatOf = Annotated[
    Format,
    Query(
        alias="format",
        description="`ndjson` can be checked with `ias audit verify`; `csv` is for spreadsheets.",
    ),
]

_FILE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file, streamed.",
        "content": {media_type: {"schema": {"type": "string"}} for media_type in MEDIA_TYPES.values()},
    }
}


@router.get("/orgs/{org_id}/audit-log")
async def list_audit_log(
    *,
    org_id: UUID,
    access: Reader,
    parts: PartsOf,
    wanted: Wanted,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[AuditEntryAnswer]:
    """What was changed or denied in an org, newest first."""
    return await _list(parts, access, org_id, wanted, limit=limit, cursor=cursor)


@router.get("/orgs/{org_id}/audit-log/export", response_class=StreamingResponse, responses=_FILE)
async def export_audit_log(
    *,
    org_id: UUID,
    access: Reader,
    parts: PartsOf,
    origin: OriginOf,
    wanted: Wanted,
    file_format: FormatOf = "ndjson",
) -> StreamingResponse:
    """An org's log from its first entry on, as a file. The export itself is the last entry."""
    return await _export(parts, access, org_id, wanted, origin=origin, file_format=file_format)


@router.get("/audit-log")
async def list_platform_audit_log(
    *,
    access: Reader,
    parts: PartsOf,
    wanted: Wanted,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[AuditEntryAnswer]:
    """What was changed or denied on the platform and in no org, newest first. For platform admins."""
    return await _list(parts, access, None, wanted, limit=limit, cursor=cursor)


@router.get("/audit-log/export", response_class=StreamingResponse, responses=_FILE)
async def export_platform_audit_log(
    *, access: Reader, parts: PartsOf, origin: OriginOf, wanted: Wanted, file_format: FormatOf = "ndjson"
) -> StreamingResponse:
    """The platform's log from its first entry on, as a file. For platform admins."""
    return await _export(parts, access, None, wanted, origin=origin, file_format=file_format)


async def _list(
    parts: Parts, access: Access, org_id: UUID | None, wanted: AuditQuery, *, limit: int, cursor: str | None
) -> Page[AuditEntryAnswer]:
    filters = f"audit_log\0{org_id}\0{wanted.model_dump_json()}"
    after = parts.cursors.decode(cursor, filters)
    rows = await parts.audit_log.list_entries(access, org_id, _filter(wanted), after=after, limit=limit + 1)
    return parts.cursors.page([AuditEntryAnswer.model_validate(row) for row in rows], limit, filters)


async def _export(
    parts: Parts, access: Access, org_id: UUID | None, wanted: AuditQuery, *, origin: Origin, file_format: Format
) -> StreamingResponse:
    checkpoints, batches = await parts.audit_exports.export(access, org_id, _filter(wanted), origin)
    lines: AsyncIterator[str] = write_csv(batches) if file_format == "csv" else write_ndjson(checkpoints, batches)
    name = f"audit-log-{org_id or 'platform'}.{file_format}"
    return StreamingResponse(
        lines, media_type=MEDIA_TYPES[file_format], headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )


def _filter(wanted: AuditQuery) -> AuditFilter:
    return AuditFilter(**wanted.model_dump())

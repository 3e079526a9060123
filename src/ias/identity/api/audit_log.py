"""The audit log of an org."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter

from ias.contracts.permissions import Permission
from ias.identity.api.parts import PartsOf
from ias.kit.authorization import Access, requires
from ias.kit.cursors import CursorText, Limit, Page
from ias.kit.web import Answer

router = APIRouter(prefix="/identity/v1/orgs/{org_id}/audit-log", tags=["audit log"])


class AuditEntryAnswer(Answer):
    """One change. `hash` covers the other fields and, by `previous_hash`, every entry of the org before it."""

    id: UUID
    chain_id: UUID
    org_id: UUID | None
    sequence: int
    occurred_at: datetime
    actor_kind: Literal["user", "service", "system"]
    actor_id: str | None
    action: str
    target_kind: str
    target_id: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str | None
    source_ip: str | None
    previous_hash: str
    hash: str


@router.get("")
async def list_audit_log(
    org_id: UUID,
    access: Annotated[Access, requires(Permission.AUDIT_READ)],
    parts: PartsOf,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[AuditEntryAnswer]:
    """What was changed in an org, newest first."""
    filters = f"audit_log {org_id}"
    after = parts.cursors.decode(cursor, filters)
    rows = await parts.audit_log.list_entries(access, org_id, after=after, limit=limit + 1)
    return parts.cursors.page([AuditEntryAnswer.model_validate(row) for row in rows], limit, filters)

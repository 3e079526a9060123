"""`/registry/v1/changes`."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query

from ias.contracts.permissions import Permission
from ias.kit.authorization import Access, requires
from ias.kit.cursors import CursorText, Limit, Page
from ias.kit.routing import Router
from ias.kit.web import Answer
from ias.registry.api.parts import ChangesPart, CursorsPart

router = Router(prefix="/registry/v1", tags=["changes"])


class ChangeAnswer(Answer):
    """Who changed what, from what to what, in which request. Secrets are never in it."""

    id: UUID
    at: datetime
    actor: str
    action: str
    target_kind: str
    target_id: UUID
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str
    route_table_version: int


@router.get("/changes")
async def list_changes(
    *,
    access: Annotated[Access, requires(Permission.AUDIT_READ)],
    changes: ChangesPart,
    cursors: CursorsPart,
    target_id: Annotated[UUID | None, Query(description="Only changes of this model or backend.")] = None,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[ChangeAnswer]:
    """List what was changed, newest first. For platform admins."""
    access.on_platform()
    filters = f"changes target_id={target_id}"
    rows = await changes.list_changes(target_id=target_id, after=cursors.decode(cursor, filters), limit=limit + 1)
    return cursors.page([ChangeAnswer.model_validate(row) for row in rows], limit, filters)

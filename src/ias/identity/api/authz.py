"""Why somebody may do something, or what they lack."""

from typing import Annotated
from uuid import UUID

from fastapi import Query

from ias.contracts.permissions import Permission, Role
from ias.identity.api.parts import OriginOf, PartsOf
from ias.identity.core.explanations import Missing, Question
from ias.kit.authorization import signed_in
from ias.kit.routing import Router
from ias.kit.tokens import Claims
from ias.kit.web import Answer

router = Router(prefix="/identity/v1/authz", tags=["authorization"])


class HeldRoleAnswer(Answer):
    """A role: a built-in one by its name, or one of the org's own by its id. Null for `project_id` is the whole org."""

    org_id: UUID
    project_id: UUID | None
    role: str
    name: str


class ExplanationAnswer(Answer):
    """`granted_by` are the roles that allow it, `held` all that hold there; `missing` says what is in the way, null if nothing."""

    user_id: UUID
    permission: Permission
    org_id: UUID
    project_id: UUID | None
    allowed: bool
    platform_admin: bool
    granted_by: list[HeldRoleAnswer]
    held: list[HeldRoleAnswer]
    missing: Missing | None
    would_allow: list[Role]


@router.get("/explain")
async def explain_authorization(
    *,
    actor: Annotated[Claims, signed_in()],
    parts: PartsOf,
    origin: OriginOf,
    permission: Permission,
    org_id: UUID,
    project_id: UUID | None = None,
    user_id: Annotated[
        UUID | None, Query(description="Somebody else, for who may read the org's members; the caller where absent.")
    ] = None,
) -> ExplanationAnswer:
    """Why a permission is held in an org or project, or what is missing. A token may be older than what this says."""
    question = Question(permission, org_id, project_id, user_id)
    found = await parts.explanations.explain(actor, question, origin.source_ip)
    return ExplanationAnswer(
        user_id=found.user_id,
        permission=permission,
        org_id=org_id,
        project_id=project_id,
        allowed=found.allowed,
        platform_admin=found.platform_admin,
        granted_by=[HeldRoleAnswer.model_validate(role) for role in found.granted_by],
        held=[HeldRoleAnswer.model_validate(role) for role in found.held],
        missing=found.missing,
        would_allow=found.would_allow,
    )

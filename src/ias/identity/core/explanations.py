"""Why somebody may do something, or what they lack."""

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from ias.contracts.permissions import PLATFORM_PERMISSIONS, ROLE_PERMISSIONS, Permission, Role
from ias.identity.core.grants import HeldRole, find_orgs_that_keep_out, list_held_roles
from ias.identity.store import users as user_store
from ias.kit.access import Access
from ias.kit.database import Database
from ias.kit.problems import NotFoundError
from ias.kit.tokens import Claims

Missing = Literal[
    "account_suspended", "platform_permission", "no_role", "role_lacks_permission", "kept_out_by_org_settings"
]


@dataclass(frozen=True, slots=True)
class Question:
    """May a user do something in an org, or in one of its projects? None for `user_id` is the caller."""

    permission: Permission
    org_id: UUID
    project_id: UUID | None = None
    user_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer, by what the rows say now."""

    user_id: UUID
    allowed: bool
    platform_admin: bool
    granted_by: list[HeldRole]
    """The roles that allow it."""
    held: list[HeldRole]
    """The roles that hold there, whatever they allow."""
    missing: Missing | None
    would_allow: list[Role]
    """Built-in roles that hold the permission."""


class Explanations:
    """Answers by the rows; a token that is minutes old may say something else."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def explain(self, actor: Claims, question: Question, source_ip: str | None) -> Explanation:
        """Why the user may, or may not.

        Raises:
            NotFoundError, ForbiddenError: about somebody else, by a caller who may not read the org's members; or they are none.
        """
        user_id = question.user_id or UUID(actor.sub)
        own = user_id == UUID(actor.sub)
        if not own:
            Access(actor, Permission.MEMBERS_READ).in_org(str(question.org_id))
        async with self._database.transaction() as connection:
            user = await user_store.find_user(connection, user_id)
            roles = await list_held_roles(connection, user_id)
            in_org = [role for role in roles if role.org_id == str(question.org_id)]
            if user is None or (not own and not in_org):
                raise NotFoundError
            # Where somebody else asks from is not known.
            address = source_ip if own else None
            kept_out = own and await find_orgs_that_keep_out(connection, user, address, {str(question.org_id)})
        place = str(question.project_id) if question.project_id else None
        held = [role for role in in_org if role.project_id in (None, place)]
        granting = [role for role in held if question.permission in role.permissions]
        missing = _find_missing(
            question.permission,
            is_admin=user.platform_admin,
            is_active=user.status == "active",
            held=bool(held),
            granted=bool(granting),
            kept_out=bool(kept_out),
        )
        return Explanation(
            user_id=user_id,
            allowed=missing is None,
            platform_admin=user.platform_admin,
            granted_by=granting,
            held=held,
            missing=missing,
            would_allow=[role for role in Role if question.permission in ROLE_PERMISSIONS[role]],
        )


def _find_missing(
    permission: Permission, *, is_admin: bool, is_active: bool, held: bool, granted: bool, kept_out: bool
) -> Missing | None:
    if not is_active:
        return "account_suspended"
    if is_admin:
        return None
    if permission in PLATFORM_PERMISSIONS:
        return "platform_permission"
    if not held:
        return "no_role"
    if kept_out:
        return "kept_out_by_org_settings"
    return None if granted else "role_lacks_permission"

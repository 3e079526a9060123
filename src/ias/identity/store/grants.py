"""What users hold, by whatever way: a role in an org, a narrower one in a project, an org's own role in either."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ARRAY, Text, Uuid, and_, cast, literal, null, or_, select, true, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.permissions import Role
from ias.identity.store.tables import members, orgs, project_roles, role_assignments, roles


@dataclass(frozen=True, slots=True)
class Grant:
    """A role that somebody holds, in an org or in one of its projects alone."""

    org_id: UUID
    project_id: UUID | None
    role: str
    """The name of a built-in role, or the id of an org's own."""
    own_name: str | None
    """Of an org's own role; with it come its permissions."""
    permissions: list[str] | None
    org_status: str


async def list_grants(connection: AsyncConnection, user_id: UUID, *, even_suspended: bool = False) -> list[Grant]:
    """Everything a user holds: first what holds in whole orgs, then in projects, then orgs' own roles.

    In a deleted org that is nothing, but for its owners. A suspended member holds nothing, or with `even_suspended` what they will
    when they are restored.
    """
    let = true() if even_suspended else members.c.status == "active"
    columns = (members.c.org_id, orgs.c.status.label("org_status"))
    no_name, no_permissions = null().cast(Text), null().cast(ARRAY(Text))
    in_orgs = (
        select(*columns, null().cast(Uuid).label("project_id"), members.c.role.label("role"))
        .add_columns(no_name.label("own_name"), no_permissions.label("permissions"))
        .add_columns(literal(0).label("kind"), members.c.org_id.label("place"))
        .join(orgs, orgs.c.id == members.c.org_id)
        .where(members.c.user_id == user_id, let, or_(orgs.c.status != "deleted", members.c.role == Role.OWNER))
    )
    in_projects = (
        select(*columns, project_roles.c.project_id, project_roles.c.role, no_name, no_permissions)
        .add_columns(literal(1), project_roles.c.project_id)
        .join(orgs, orgs.c.id == members.c.org_id)
        .join(
            project_roles,
            and_(project_roles.c.org_id == members.c.org_id, project_roles.c.user_id == members.c.user_id),
        )
        .where(members.c.user_id == user_id, let, orgs.c.status != "deleted")
    )
    own = (
        select(*columns, role_assignments.c.project_id, cast(roles.c.id, Text), roles.c.name, roles.c.permissions)
        .add_columns(literal(2), role_assignments.c.id)
        .join(orgs, orgs.c.id == members.c.org_id)
        .join(
            role_assignments,
            and_(role_assignments.c.org_id == members.c.org_id, role_assignments.c.user_id == members.c.user_id),
        )
        .join(roles, roles.c.id == role_assignments.c.role_id)
        .where(members.c.user_id == user_id, let, orgs.c.status != "deleted")
    )
    found = union_all(in_orgs, in_projects, own).subquery()
    wanted = [found.c[name] for name in Grant.__dataclass_fields__]
    rows = await connection.execute(select(*wanted).order_by(found.c.kind, found.c.place))
    return [Grant(*row) for row in rows]

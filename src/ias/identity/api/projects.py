"""Projects."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Response

from ias.contracts.permissions import Permission
from ias.identity.api.fields import IN_FORCE, ModelNames, Name, say_in_force
from ias.identity.api.parts import OriginOf, PartsOf
from ias.identity.core.orgs import TenantChanges
from ias.kit.authorization import Access, requires
from ias.kit.cursors import CursorText, Limit, Page
from ias.kit.routing import Router
from ias.kit.web import Answer, Body

router = Router(prefix="/identity/v1", tags=["projects"])


class NewProject(Body):
    """A project to create. Its name is its own within the org."""

    name: Name
    models: ModelNames = None


class ProjectPatch(Body):
    """What to change; what is absent stays. `suspended` stops all its traffic, `active` restores it."""

    name: Name | None = None
    status: Literal["active", "suspended"] | None = None
    models: ModelNames = None

    def changes(self) -> TenantChanges:
        """The changes. Null means something for `models` alone: all that the org may use."""
        given = {name for name in self.model_fields_set if name == "models" or getattr(self, name) is not None}
        return TenantChanges(frozenset(given), name=self.name, status=self.status, models=self.models)


class ProjectAnswer(Answer):
    """A project. `version` grows with every change."""

    id: UUID
    org_id: UUID
    name: str
    is_default: bool
    status: Literal["active", "suspended", "deleted"]
    models: list[str] | None
    version: int
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None


@router.post("/orgs/{org_id}/projects", status_code=201, responses={201: {"headers": IN_FORCE}})
async def create_project(
    *,
    org_id: UUID,
    body: NewProject,
    access: Annotated[Access, requires(Permission.PROJECTS_WRITE)],
    parts: PartsOf,
    origin: OriginOf,
    response: Response,
) -> ProjectAnswer:
    """Create a project in an org."""
    project, in_force = await parts.projects.create(access, org_id, body.name, body.models, origin)
    say_in_force(response, in_force)
    return ProjectAnswer.model_validate(project)


@router.get("/orgs/{org_id}/projects")
async def list_projects(
    org_id: UUID,
    access: Annotated[Access, requires(Permission.PROJECTS_READ)],
    parts: PartsOf,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[ProjectAnswer]:
    """The projects of an org, newest first."""
    filters = f"projects {org_id}"
    after = parts.cursors.decode(cursor, filters)
    rows = await parts.projects.list_projects(access, org_id, after=after, limit=limit + 1)
    return parts.cursors.page([ProjectAnswer.model_validate(row) for row in rows], limit, filters)


@router.get("/projects/{project_id}")
async def get_project(
    project_id: UUID, access: Annotated[Access, requires(Permission.PROJECTS_READ)], parts: PartsOf
) -> ProjectAnswer:
    """One project."""
    return ProjectAnswer.model_validate(await parts.projects.get(access, project_id))


@router.patch("/projects/{project_id}", responses={200: {"headers": IN_FORCE}})
async def update_project(
    *,
    project_id: UUID,
    body: ProjectPatch,
    access: Annotated[Access, requires(Permission.PROJECTS_WRITE)],
    parts: PartsOf,
    origin: OriginOf,
    response: Response,
) -> ProjectAnswer:
    """Rename a project, suspend or restore it, or set the models it may use."""
    project, in_force = await parts.projects.update(access, project_id, body.changes(), origin)
    say_in_force(response, in_force)
    return ProjectAnswer.model_validate(project)


@router.delete("/projects/{project_id}", status_code=204, responses={204: {"headers": IN_FORCE}})
async def delete_project(
    project_id: UUID,
    access: Annotated[Access, requires(Permission.PROJECTS_WRITE)],
    parts: PartsOf,
    origin: OriginOf,
    response: Response,
) -> None:
    """Delete a project: its keys stop at once. It can be restored until it is purged. Deleting it again changes nothing."""
    say_in_force(response, await parts.projects.delete(access, project_id, origin))


@router.post("/projects/{project_id}/restore", responses={200: {"headers": IN_FORCE}})
async def restore_project(
    project_id: UUID,
    access: Annotated[Access, requires(Permission.PROJECTS_WRITE)],
    parts: PartsOf,
    origin: OriginOf,
    response: Response,
) -> ProjectAnswer:
    """Take a deletion back. Restoring what is not deleted changes nothing."""
    project, in_force = await parts.projects.restore(access, project_id, origin)
    say_in_force(response, in_force)
    return ProjectAnswer.model_validate(project)

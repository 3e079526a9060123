"""Service accounts: holders of keys that are nobody's own, so that a key outlives who made it."""

from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.exc import IntegrityError

from ias.contracts.ids import uuid7
from ias.identity.core.audit_log import Change, Origin, append
from ias.identity.core.projects import get_project, get_scope
from ias.identity.store import service_accounts as store
from ias.identity.store.service_accounts import ServiceAccount
from ias.kit.access import Access
from ias.kit.database import Database
from ias.kit.problems import ConflictError


class ServiceAccounts:
    """Creating and reading service accounts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, access: Access, project_id: UUID, name: str, origin: Origin) -> ServiceAccount:
        """A new service account in a project.

        Raises:
            ConflictError: the project has one of that name.
        """
        now = datetime.now(UTC)
        try:
            async with self._database.transaction() as connection:
                scope, project = await get_project(connection, access, project_id)
                values = {"id": uuid7(), "org_id": project.org_id, "project_id": project_id, "name": name}
                account = await store.insert_service_account(
                    connection, {**values, "created_at": now, "updated_at": now}
                )
                after = {"name": name, "project_id": str(project_id)}
                change = Change("service_account.create", account.id, account.org_id, after=after)
                await append(connection, origin.by(scope.actor), change)
        except IntegrityError as error:
            raise ConflictError("The project has a service account of that name.", code="name_taken") from error
        return account

    async def list_service_accounts(
        self, access: Access, project_id: UUID, *, after: UUID | None, limit: int
    ) -> list[ServiceAccount]:
        """Service accounts of a project, newest first."""
        async with self._database.transaction() as connection:
            scope = await get_scope(connection, access, project_id)
            return await store.list_service_accounts(connection, scope, project_id, after=after, limit=limit)

"""Service accounts: holders of keys that are nobody's own, so that a key outlives who made it."""

from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.ids import uuid7
from ias.identity.core.audit_log import Change, Origin, append
from ias.identity.core.org_rules import check_not_deleted
from ias.identity.core.projects import get_project, get_scope
from ias.identity.core.redis_records import RedisRecords
from ias.identity.store import api_keys as key_store
from ias.identity.store import service_accounts as store
from ias.identity.store.service_accounts import ServiceAccount
from ias.kit.access import Access, OrgScope
from ias.kit.database import Database
from ias.kit.problems import ConflictError, NotFoundError
from ias.kit.writes import check_version


class ServiceAccounts:
    """Creating, reading, changing, suspending and deleting service accounts. What holds for one holds for its keys."""

    def __init__(self, database: Database, records: RedisRecords) -> None:
        self._database = database
        self._records = records

    async def create(self, access: Access, project_id: UUID, name: str, origin: Origin) -> ServiceAccount:
        """A new service account in a project.

        Raises:
            ConflictError: the project has one of that name.
        """
        now = datetime.now(UTC)
        try:
            async with self._database.transaction() as connection:
                scope, project = await get_project(connection, access, project_id)
                check_not_deleted(project.status, "project")
                values = {"id": uuid7(), "org_id": project.org_id, "project_id": project_id, "name": name}
                account = await store.insert_service_account(
                    connection, {**values, "created_at": now, "updated_at": now}
                )
                after = {"name": name, "project_id": str(project_id)}
                change = Change("service_account.create", account.id, account.org_id, after=after)
                await append(connection, origin.by(scope.actor), change)
        except IntegrityError as error:
            raise _name_taken() from error
        return account

    async def get(self, access: Access, account_id: UUID) -> ServiceAccount:
        """The service account. Raises `NotFoundError` also when the caller has nothing to do with its org."""
        async with self._database.transaction() as connection:
            _, account = await _get(connection, access, account_id)
        return account

    async def update(
        self, access: Access, account_id: UUID, *, name: str | None, status: str | None, origin: Origin
    ) -> tuple[ServiceAccount, bool]:
        """The account after the changes (None changes nothing); and whether they are in force at the gateways.

        Suspending it suspends its keys.

        Raises:
            ConflictError: the project has another one of that name.
        """
        try:
            async with self._database.transaction() as connection:
                scope, account = await _get(connection, access, account_id, lock=True)
                check_version(account.version)
                wanted = {"name": name or account.name, "status": status or account.status}
                after = {field: value for field, value in wanted.items() if getattr(account, field) != value}
                if not after:
                    return account, True
                before = {field: getattr(account, field) for field in after}
                account = await store.update_service_account(connection, scope, account_id, after)
                keys = []
                if "status" in after:
                    keys = await key_store.touch_api_keys_of_service_account(connection, scope, account_id)
                change = Change("service_account.update", account_id, account.org_id, before, after)
                await append(connection, origin.by(scope.actor), change)
        except IntegrityError as error:
            raise _name_taken() from error
        return account, await self._records.push(api_key=keys)

    async def delete(self, access: Access, account_id: UUID, origin: Origin) -> bool:
        """Delete a service account and revoke its keys, for good; whether that is in force at the gateways."""
        async with self._database.transaction() as connection:
            scope, account = await _get(connection, access, account_id, lock=True)
            check_version(account.version)
            await store.update_service_account(connection, scope, account_id, {"status": "deleted"})
            keys = await key_store.revoke_api_keys_of_service_account(connection, scope, account_id)
            before = {"name": account.name, "project_id": str(account.project_id), "status": account.status}
            changes = [Change("service_account.delete", account_id, account.org_id, before)]
            changes += [
                Change("api_key.revoke", key.id, account.org_id, {"status": "active"}, {"status": "revoked"})
                for key in keys
            ]
            await append(connection, origin.by(scope.actor), *changes)
        return await self._records.push(api_key=[key.id for key in keys])

    async def list_service_accounts(
        self, access: Access, project_id: UUID, *, after: UUID | None, limit: int
    ) -> list[ServiceAccount]:
        """Service accounts of a project, newest first."""
        async with self._database.transaction() as connection:
            scope = await get_scope(connection, access, project_id)
            return await store.list_service_accounts(connection, scope, project_id, after=after, limit=limit)


async def _get(
    connection: AsyncConnection, access: Access, account_id: UUID, *, lock: bool = False
) -> tuple[OrgScope, ServiceAccount]:
    place = await store.find_place(connection, account_id)
    if place is None:
        raise NotFoundError
    scope = access.in_project(str(place[0]), str(place[1]))
    account = await store.find_service_account(connection, scope, account_id, lock=lock)
    if account is None:
        raise NotFoundError
    return scope, account


def _name_taken() -> ConflictError:
    return ConflictError("The project has a service account of that name.", code="name_taken")

"""API keys: issued once, shown once, revoked for good."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.api_keys import digest_key, generate_key, redact_key
from ias.contracts.ids import uuid7
from ias.identity.core.audit_log import Change, Origin, append
from ias.identity.core.key_holders import check_holder
from ias.identity.core.org_rules import check_not_deleted, limit_expiry
from ias.identity.core.projects import get_project, get_scope
from ias.identity.core.redis_records import RedisRecords
from ias.identity.store import api_keys as store
from ias.identity.store import orgs as org_store
from ias.identity.store import service_accounts as account_store
from ias.identity.store.api_keys import ApiKey
from ias.identity.store.orgs import Org
from ias.kit.access import Access, OrgScope
from ias.kit.database import Database
from ias.kit.problems import ConflictError, FieldError, ForbiddenError, InvalidError, NotFoundError
from ias.kit.writes import check_version

_ENDED_DIGESTS_KEPT = timedelta(days=90)
"""How long gateways still hear of an earlier text which key it was of."""


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """What a key shall be. A key without a service account belongs to whoever creates it."""

    name: str
    expires_at: datetime | None = None
    scopes: list[str] | None = None
    models: list[str] | None = None
    ip_networks: list[str] | None = None
    service_account_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class KeyChanges:
    """What may be changed of a key: the fields named in `given` take the values here."""

    given: frozenset[str]
    name: str | None = None
    expires_at: datetime | None = None
    scopes: list[str] | None = None
    models: list[str] | None = None
    ip_networks: list[str] | None = None

    def against(self, key: ApiKey) -> tuple[dict[str, Any], dict[str, Any]]:
        """The fields that differ from a row: as they are, and as they shall be."""
        changed = {name: getattr(self, name) for name in self.given if getattr(self, name) != getattr(key, name)}
        return {name: getattr(key, name) for name in changed}, changed


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A key with its text, which exists nowhere else from now on."""

    row: ApiKey
    text: str
    in_force: bool


def describe(key: ApiKey) -> dict[str, Any]:
    """What the audit log says of a key."""
    return {
        "name": key.name,
        "redacted": key.redacted,
        "project_id": str(key.project_id),
        "user_id": str(key.user_id) if key.user_id else None,
        "service_account_id": str(key.service_account_id) if key.service_account_id else None,
        "expires_at": key.expires_at.isoformat() if key.expires_at else None,
        "scopes": key.scopes,
        "models": key.models,
        "ip_networks": key.ip_networks,
    }


class ApiKeys:
    """Issuing, reading and revoking keys."""

    def __init__(self, database: Database, records: RedisRecords, *, per_project_max: int) -> None:
        self._database = database
        self._records = records
        self._per_project_max = per_project_max

    async def create(self, access: Access, project_id: UUID, wanted: NewApiKey, origin: Origin) -> IssuedKey:
        """A new key in a project.

        Raises:
            NotFoundError: no such project, or no such service account in it.
            InvalidError: it would be born expired, or live longer than the org lets its keys.
            ConflictError: the project or its org was deleted, or the project has as many keys in use as it may.
            ForbiddenError: the caller may not (any more).
        """
        now = datetime.now(UTC)
        text = generate_key()
        async with self._database.transaction() as connection:
            scope, project = await get_project(connection, access, project_id, lock=True)
            org = await self._get_org(connection, project.org_id)
            check_not_deleted(project.status, "project")
            await check_holder(connection, scope, project_id)
            await self._check_room(connection, scope, project_id)
            await self._check_service_account(connection, scope, project_id, wanted.service_account_id)
            key = await store.insert_api_key(
                connection,
                {
                    "id": uuid7(),
                    "org_id": project.org_id,
                    "project_id": project_id,
                    "user_id": None if wanted.service_account_id else UUID(scope.actor.sub),
                    "service_account_id": wanted.service_account_id,
                    "name": wanted.name,
                    "digest": digest_key(text),
                    "redacted": redact_key(text),
                    "expires_at": limit_expiry(org, wanted.expires_at, now),
                    "scopes": wanted.scopes,
                    "models": wanted.models,
                    "ip_networks": wanted.ip_networks,
                    "created_by": UUID(scope.actor.sub),
                    "created_at": now,
                    "updated_at": now,
                },
            )
            change = Change("api_key.create", key.id, key.org_id, after=describe(key))
            await append(connection, origin.by(scope.actor), change)
        return IssuedKey(key, text, await self._records.push(api_key=key.id))

    async def get(self, access: Access, key_id: UUID) -> ApiKey:
        """The key. Raises `NotFoundError` also when the caller has nothing to do with its org."""
        async with self._database.transaction() as connection:
            _, key = await self._get(connection, access, key_id)
        return key

    async def list_api_keys(self, access: Access, project_id: UUID, *, after: UUID | None, limit: int) -> list[ApiKey]:
        """Keys of a project, newest first."""
        async with self._database.transaction() as connection:
            scope = await get_scope(connection, access, project_id)
            return await store.list_api_keys(connection, scope, project_id, after=after, limit=limit)

    async def update(self, access: Access, key_id: UUID, changes: KeyChanges, origin: Origin) -> tuple[ApiKey, bool]:
        """The key after the changes; and whether they are in force at the gateways.

        Raises:
            ConflictError: the key was revoked; or had expired, and the project has as many in use as it may.
            InvalidError: it would have expired, or live longer from now on than the org lets its keys.
        """
        async with self._database.transaction() as connection:
            scope, key = await self._get(connection, access, key_id, lock=True)
            check_version(key.version)
            _check_in_use(key)
            before, after = changes.against(key)
            if "expires_at" in after:
                org = await self._get_org(connection, key.org_id)
                after["expires_at"] = limit_expiry(org, after["expires_at"], now := datetime.now(UTC))
                if _has_expired(key, now):
                    await self._check_room(connection, scope, key.project_id)
            if not after:
                return key, key.pushed_version >= key.version
            key = await store.update_api_key(connection, scope, key_id, after)
            change = Change("api_key.update", key_id, key.org_id, _plain(before), _plain(after))
            await append(connection, origin.by(scope.actor), change)
        return key, await self._records.push(api_key=key_id)

    async def rotate(
        self, access: Access, key_id: UUID, overlap: timedelta, expires_at: datetime | None, origin: Origin
    ) -> IssuedKey:
        """The key with a new text. The text it had works on for `overlap`; earlier ones end at once.

        The key stays the same key: its limits, budgets and usage go on. `expires_at` as for a new key; None keeps the moment it
        has, if the org's longest lifetime allows.

        Raises:
            ConflictError: the key was revoked, or has expired and is to stay so, or the project has too many in use.
            ForbiddenError: it is somebody else's own: whoever was shown its text would be them to gateways.
            InvalidError: as `create`.
        """
        now = datetime.now(UTC)
        text = generate_key()
        async with self._database.transaction() as connection:
            scope, key = await self._get(connection, access, key_id, lock=True)
            _check_in_use(key)
            if key.user_id is not None and key.user_id != UUID(scope.actor.sub):
                raise ForbiddenError(
                    "The key is somebody else's own. Revoke it, if it must end.", code="key_of_another"
                )
            if _has_expired(key, now):
                if expires_at is None:
                    raise ConflictError("The key has expired; say when the rotated one shall.", code="key_expired")
                await self._check_room(connection, scope, key.project_id)
            org = await self._get_org(connection, key.org_id)
            expires_at = limit_expiry(org, expires_at or key.expires_at, now)
            valid_until = min(now + overlap, key.expires_at or now + overlap)
            await store.retire_digest(connection, key, valid_until, kept_from=now - _ENDED_DIGESTS_KEPT)
            changes = {"digest": digest_key(text), "redacted": redact_key(text), "rotated_at": now}
            before, key = (
                key,
                await store.update_api_key(connection, scope, key_id, {**changes, "expires_at": expires_at}),
            )
            change = Change(
                "api_key.rotate",
                key_id,
                key.org_id,
                {"redacted": before.redacted, "expires_at": _moment(before.expires_at)},
                {"redacted": key.redacted, "expires_at": _moment(expires_at), "old_valid_until": _moment(valid_until)},
            )
            await append(connection, origin.by(scope.actor), change)
        return IssuedKey(key, text, await self._records.push(api_key=key_id))

    async def revoke(self, access: Access, key_id: UUID, origin: Origin) -> bool:
        """Revoke a key for good; whether that is in force at the gateways. Revoking a revoked key is no error."""
        async with self._database.transaction() as connection:
            scope, key = await self._get(connection, access, key_id, lock=True)
            check_version(key.version)
            if key.status == "revoked":
                return key.pushed_version >= key.version
            await store.revoke_api_key(connection, scope, key_id)
            change = Change("api_key.revoke", key_id, key.org_id, {"status": key.status}, {"status": "revoked"})
            await append(connection, origin.by(scope.actor), change)
        return await self._records.push(api_key=key_id)

    async def _get(
        self, connection: AsyncConnection, access: Access, key_id: UUID, *, lock: bool = False
    ) -> tuple[OrgScope, ApiKey]:
        place = await store.find_place(connection, key_id)
        if place is None:
            raise NotFoundError
        org_id, project_id = place
        scope = access.in_project(str(org_id), str(project_id))
        key = await store.find_api_key(connection, scope, key_id, lock=lock)
        if key is None:
            raise NotFoundError
        return scope, key

    async def _get_org(self, connection: AsyncConnection, org_id: UUID) -> Org:
        org = await org_store.find_org(connection, org_id)
        if org is None:
            raise NotFoundError
        check_not_deleted(org.status, "org")
        return org

    async def _check_room(self, connection: AsyncConnection, scope: OrgScope, project_id: UUID) -> None:
        """Return when the project may have one more key in use. Exact only while the project is locked."""
        if await store.count_keys_in_use(connection, scope, project_id) >= self._per_project_max:
            raise ConflictError(
                f"The project has {self._per_project_max} keys in use, as many as it may. Revoke some first.",
                code="too_many_api_keys",
            )

    async def _check_service_account(
        self, connection: AsyncConnection, scope: OrgScope, project_id: UUID, account_id: UUID | None
    ) -> None:
        if account_id is None:
            return
        # Locked: while it is being deleted, and its keys revoked, it gets no other.
        account = await account_store.find_service_account(
            connection, scope, account_id, project_id=project_id, lock=True
        )
        if account is None:
            detail = "There is no such service account in the project."
            raise InvalidError(detail, errors=[FieldError(pointer="/service_account_id", detail=detail)])


def _check_in_use(key: ApiKey) -> None:
    if key.status == "revoked":
        raise ConflictError("The key was revoked, for good.", code="key_revoked")


def _has_expired(key: ApiKey, now: datetime) -> bool:
    return key.expires_at is not None and key.expires_at <= now


def _moment(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: _moment(value) if isinstance(value, datetime) else value for name, value in fields.items()}

"""Members: who belongs to an org, with which role. An org always has an owner, and only owners make and unmake owners."""

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.ids import uuid7
from ias.contracts.permissions import Role
from ias.identity.core import users
from ias.identity.core.audit_log import Change, Origin, append
from ias.identity.core.passwords import Passwords
from ias.identity.core.redis_records import RedisRecords
from ias.identity.core.session_revocations import SessionRevocations
from ias.identity.store import api_keys as key_store
from ias.identity.store import members as store
from ias.identity.store import orgs as org_store
from ias.identity.store import users as user_store
from ias.identity.store.members import Member
from ias.kit.access import Access, OrgScope
from ias.kit.database import Database
from ias.kit.problems import ConflictError, FieldError, ForbiddenError, InvalidError, NotFoundError


@dataclass(frozen=True, slots=True)
class NewMember:
    """Who shall belong to an org. The password is for somebody who is no user yet."""

    email: str
    role: Role
    password: str | None = None


class Members:
    """Adding, reading, changing and removing members. Changes of one org's members happen one after the other."""

    def __init__(
        self, database: Database, passwords: Passwords, records: RedisRecords, revocations: SessionRevocations
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._records = records
        self._revocations = revocations

    async def add(self, access: Access, org_id: UUID, wanted: NewMember, origin: Origin) -> Member:
        """A new member: the user of the e-mail or, with a password, a new user. A user who exists keeps their password.

        Raises:
            ConflictError: they are a member already.
            InvalidError: there is no such user, and no password to make one with.
            ForbiddenError: a new owner, by somebody who is none.
        """
        scope = access.in_org(str(org_id))
        email = users.check_email(wanted.email)
        # Hashed before the transaction, whether or not it will be needed: it takes long.
        password_hash = await self._passwords.hash(wanted.password) if wanted.password is not None else None
        try:
            async with self._database.transaction() as connection:
                await _lock_org(connection, org_id)
                if wanted.role is Role.OWNER:
                    await _require_owner(connection, scope)
                user = await user_store.find_user_by_email(connection, email)
                changes = []
                if user is None:
                    if password_hash is None:
                        detail = "There is no user with this e-mail; give a password to make one."
                        raise InvalidError(detail, errors=[FieldError(pointer="/password", detail=detail)])
                    user = await users.insert_user(connection, email, password_hash)
                    changes.append(Change("user.create", user.id, after=users.describe(user)))
                now = datetime.now(UTC)
                member = {"id": uuid7(), "org_id": org_id, "user_id": user.id, "role": wanted.role}
                await store.insert_member(connection, {**member, "created_at": now, "updated_at": now})
                changes.append(Change("member.create", user.id, org_id, after={"email": email, "role": wanted.role}))
                await append(connection, origin.by(scope.actor), *changes)
                return await _get_member(connection, scope, user.id)
        except IntegrityError as error:
            raise ConflictError("They are a member already.", code="already_member") from error

    async def list_members(self, access: Access, org_id: UUID, *, after: UUID | None, limit: int) -> list[Member]:
        """Members of an org, newest first."""
        scope = access.in_org(str(org_id))
        async with self._database.transaction() as connection:
            if await org_store.find_org(connection, org_id) is None:
                raise NotFoundError
            return await store.list_members(connection, scope, after=after, limit=limit)

    async def update_role(self, access: Access, org_id: UUID, user_id: UUID, role: Role, origin: Origin) -> Member:
        """The member with another role.

        Raises:
            ConflictError: it would leave the org without an owner.
            ForbiddenError: to or from owner, by somebody who is none.
        """
        scope = access.in_org(str(org_id))
        async with self._database.transaction() as connection:
            await _lock_org(connection, org_id)
            member = await _get_member(connection, scope, user_id)
            if member.role is role:
                return member
            if Role.OWNER in (member.role, role):
                await _require_owner(connection, scope)
            if member.role is Role.OWNER:
                await _require_another_owner(connection, scope)
            await store.update_role(connection, scope, user_id, role)
            await user_store.raise_token_version(connection, user_id)
            change = Change("member.update", user_id, org_id, {"role": member.role}, {"role": role})
            await append(connection, origin.by(scope.actor), change)
            member = await _get_member(connection, scope, user_id)
        await self._revocations.push(user_ids=[user_id])
        return member

    async def remove(self, access: Access, org_id: UUID, user_id: UUID, origin: Origin) -> bool:
        """Remove a member and revoke their own keys in the org; whether that is in force at the gateways.

        Raises:
            ConflictError: it would leave the org without an owner.
            ForbiddenError: an owner, by somebody who is none.
        """
        scope = access.in_org(str(org_id))
        async with self._database.transaction() as connection:
            await _lock_org(connection, org_id)
            member = await _get_member(connection, scope, user_id)
            if member.role is Role.OWNER:
                await _require_owner(connection, scope)
                await _require_another_owner(connection, scope)
            await store.delete_member(connection, scope, user_id)
            await user_store.raise_token_version(connection, user_id)
            keys = await key_store.revoke_api_keys_of_user(connection, scope, user_id)
            changes = [Change("member.delete", user_id, org_id, {"email": member.email, "role": member.role}, None)]
            changes += [
                Change("api_key.revoke", key.id, org_id, {"status": "active"}, {"status": "revoked"}) for key in keys
            ]
            await append(connection, origin.by(scope.actor), *changes)
        await self._revocations.push(user_ids=[user_id])
        return await self._records.push(api_key=[key.id for key in keys])


async def _lock_org(connection: AsyncConnection, org_id: UUID) -> None:
    if await org_store.find_org(connection, org_id, lock=True) is None:
        raise NotFoundError


async def _get_member(connection: AsyncConnection, scope: OrgScope, user_id: UUID) -> Member:
    member = await store.find_member(connection, scope, user_id)
    if member is None:
        raise NotFoundError
    return member


async def _require_owner(connection: AsyncConnection, scope: OrgScope) -> None:
    """By the database and not by the token, which may be minutes old."""
    if scope.actor.platform_admin:
        return
    actor = await store.find_member(connection, scope, UUID(scope.actor.sub))
    if actor is None or actor.role is not Role.OWNER:
        raise ForbiddenError("Only an owner can make or unmake an owner.")


async def _require_another_owner(connection: AsyncConnection, scope: OrgScope) -> None:
    if await store.count_owners(connection, scope) < 2:
        raise ConflictError("The org would be left without an owner.", code="last_owner")

"""What gateways must know, read as the records that Redis holds, and which of them it has not been told yet."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

import msgspec
from sqlalchemy import Select, Table, and_, any_, bindparam, exists, func, literal, or_, select, union_all, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts import redis_keys
from ias.contracts.api_keys import KeyRecord, TenantRecord
from ias.contracts.permissions import ROLE_PERMISSIONS, Permission
from ias.identity.store.tables import (
    api_keys,
    members,
    orgs,
    project_roles,
    projects,
    retired_digests,
    role_assignments,
    roles,
    service_accounts,
    users,
)

KINDS: dict[str, Table] = {"org": orgs, "project": projects, "api_key": api_keys}


@dataclass(frozen=True, slots=True)
class RedisRecord:
    """A record, the row it was made from, and the key in Redis that it belongs under."""

    kind: str
    id: UUID
    key: str
    record: KeyRecord | TenantRecord


async def list_unpushed(connection: AsyncConnection, *, limit: int) -> list[RedisRecord]:
    """Up to `limit` records of each kind whose newest version Redis has not been told."""
    pending = union_all(
        *(
            select(literal(kind).label("kind"), table.c.id)
            .where(table.c.pushed_version < table.c.version)
            .limit(limit)
            .subquery()
            .select()
            for kind, table in KINDS.items()
        )
    )
    ids: dict[str, list[UUID]] = {}
    for row in await connection.execute(pending):
        ids.setdefault(row.kind, []).append(row.id)
    return [record for kind in ids for record in await list_records(connection, kind, ids[kind])]


async def list_records(connection: AsyncConnection, kind: str, ids: Sequence[UUID]) -> list[RedisRecord]:
    """The records of the given rows, as they are now."""
    query = _QUERIES[kind].where(KINDS[kind].c.id.in_(ids))
    return await _read(connection, kind, query)


async def list_all_records(
    connection: AsyncConnection, kind: str, *, after: UUID | None, limit: int
) -> list[RedisRecord]:
    """A page of every record of a kind, oldest first."""
    table = KINDS[kind]
    query = _QUERIES[kind].order_by(table.c.id).limit(limit)
    if after is not None:
        query = query.where(table.c.id > after)
    return await _read(connection, kind, query)


async def find_key_record(connection: AsyncConnection, digest: str) -> KeyRecord | None:
    """The record of the key with a digest, be it that of an earlier text."""
    retired = select(retired_digests.c.api_key_id).where(retired_digests.c.digest == digest)
    query = _KEY_QUERY.where((api_keys.c.digest == digest) | api_keys.c.id.in_(retired))
    records = {found.key: found.record for found in await _read(connection, "api_key", query)}
    return cast("KeyRecord | None", records.get(redis_keys.api_key(digest)))


async def get_tenant_record(connection: AsyncConnection, kind: str, tenant_id: UUID) -> TenantRecord:
    """The record of an org or a project. Raises `sqlalchemy.exc.NoResultFound` when there is none."""
    query = _QUERIES[kind].where(KINDS[kind].c.id == tenant_id)
    return _tenant_record((await connection.execute(query)).mappings().one())


async def mark_pushed(connection: AsyncConnection, records: Sequence[RedisRecord]) -> None:
    """Remember the versions that Redis was told. In the order of ids, so that two pushers never wait for each other."""
    for kind, table in KINDS.items():
        versions = {record.id: record.record.version for record in records if record.kind == kind}
        if versions:
            told = func.greatest(table.c.pushed_version, bindparam("told"))
            statement = update(table).where(table.c.id == bindparam("row_id")).values(pushed_version=told)
            rows = [{"row_id": row_id, "told": versions[row_id]} for row_id in sorted(versions)]
            await connection.execute(statement, rows)


_HOLDING_ROLES = [role.value for role, held in ROLE_PERMISSIONS.items() if Permission.API_KEYS_WRITE in held]

_MAY_HOLD = or_(
    users.c.platform_admin,
    members.c.role.in_(_HOLDING_ROLES),
    exists().where(
        project_roles.c.project_id == api_keys.c.project_id,
        project_roles.c.user_id == api_keys.c.user_id,
        project_roles.c.role.in_(_HOLDING_ROLES),
    ),
    exists().where(
        role_assignments.c.org_id == api_keys.c.org_id,
        role_assignments.c.user_id == api_keys.c.user_id,
        or_(role_assignments.c.project_id.is_(None), role_assignments.c.project_id == api_keys.c.project_id),
        roles.c.id == role_assignments.c.role_id,
        literal(Permission.API_KEYS_WRITE.value) == any_(roles.c.permissions),
    ),
)
"""Whether a key's user may make keys where it is: somebody who may not any more has no use of those they made."""

_RETIRED = (
    select(func.jsonb_object_agg(retired_digests.c.digest, func.extract("epoch", retired_digests.c.valid_until)))
    .where(retired_digests.c.api_key_id == api_keys.c.id)
    .scalar_subquery()
)
"""The digests of a key's earlier texts, with the second at which each ends."""

_KEY_QUERY = (
    select(
        api_keys,
        _RETIRED.label("retired"),
        or_(api_keys.c.user_id.is_(None), func.coalesce(_MAY_HOLD, False)).label("may_hold"),
        users.c.status.label("user_status"),
        service_accounts.c.status.label("service_account_status"),
        members.c.status.label("member_status"),
    )
    .outerjoin(users, users.c.id == api_keys.c.user_id)
    .outerjoin(members, and_(members.c.org_id == api_keys.c.org_id, members.c.user_id == api_keys.c.user_id))
    .outerjoin(service_accounts, service_accounts.c.id == api_keys.c.service_account_id)
)

_QUERIES: dict[str, Select[Any]] = {"org": select(orgs), "project": select(projects), "api_key": _KEY_QUERY}


async def _read(connection: AsyncConnection, kind: str, query: Select[Any]) -> list[RedisRecord]:
    rows = (await connection.execute(query)).mappings().all()
    if kind != "api_key":
        return [_tenant(kind, row) for row in rows]
    found = []
    for row in rows:
        record = _key_record(row)
        found.append(RedisRecord(kind, row["id"], redis_keys.api_key(row["digest"]), record))
        for digest, ends_at in (row["retired"] or {}).items():
            found.append(RedisRecord(kind, row["id"], redis_keys.api_key(digest), _until(record, int(ends_at))))
    return found


def _until(record: KeyRecord, ends_at: int) -> KeyRecord:
    """The record under an earlier text of the key: the same, with an end."""
    return msgspec.structs.replace(record, expires_at=min(ends_at, record.expires_at or ends_at))


def _tenant(kind: str, row: Any) -> RedisRecord:
    key_of = redis_keys.org if kind == "org" else redis_keys.project
    return RedisRecord(kind, row["id"], key_of(str(row["id"])), _tenant_record(row))


def _tenant_record(row: Any) -> TenantRecord:
    return TenantRecord(
        version=row["version"],
        id=str(row["id"]),
        status=row["status"],
        models=_tuple(row["models"]),
        ip_networks=_tuple(row.get("ip_networks")),
    )


def _key_record(row: Any) -> KeyRecord:
    # Of a user both: their account, and their membership in the org of the key.
    statuses = {row["user_status"], row["service_account_status"], row["member_status"]} - {None}
    in_use = row["status"] == "active"
    opens = statuses == {"active"} and row["may_hold"]
    return KeyRecord(
        version=row["version"],
        key_id=str(row["id"]),
        org_id=str(row["org_id"]),
        project_id=str(row["project_id"]),
        user_id=str(row["user_id"]) if row["user_id"] else None,
        service_account_id=str(row["service_account_id"]) if row["service_account_id"] else None,
        status=("active" if opens else "suspended") if in_use else "revoked",
        expires_at=int(row["expires_at"].timestamp()) if row["expires_at"] else None,
        scopes=_tuple(row["scopes"]),
        models=_tuple(row["models"]),
        ip_networks=_tuple(row["ip_networks"]),
    )


def _tuple(values: list[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)

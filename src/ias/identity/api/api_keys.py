"""API keys: for their owners, and for the gateway that meets one it does not know."""

from datetime import datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Response
from pydantic import Field

from ias.contracts.permissions import Permission
from ias.identity.api.fields import IN_FORCE, ExpiryTime, IpNetworks, ModelNames, Name, Scopes, say_in_force
from ias.identity.api.parts import OriginOf, PartsOf
from ias.identity.core.api_keys import KeyChanges
from ias.identity.core.api_keys import NewApiKey as Wanted
from ias.kit.authorization import Access, internal, requires
from ias.kit.cursors import CursorText, Limit, Page
from ias.kit.routing import Router
from ias.kit.tokens import Claims
from ias.kit.web import Answer, Body

router = Router(prefix="/identity/v1", tags=["API keys"])
internal_router = Router(prefix="/internal", tags=["internal"])


class NewApiKey(Body):
    """A key to issue. Without `service_account_id` it belongs to the caller."""

    name: Name
    expires_at: ExpiryTime = None
    models: ModelNames = None
    scopes: Scopes = None
    ip_networks: IpNetworks = None
    service_account_id: UUID | None = None


class ApiKeyPatch(Body):
    """What to change; what is absent stays. Null lifts a limit."""

    name: Name | None = None
    expires_at: ExpiryTime = None
    models: ModelNames = None
    scopes: Scopes = None
    ip_networks: IpNetworks = None

    def changes(self) -> KeyChanges:
        """The changes. Null means nothing for `name`."""
        given = {field for field in self.model_fields_set if field != "name" or self.name}
        return KeyChanges(frozenset(given), **dict(self))


class Rotation(Body):
    """How long the key's present text works on. `expires_at`, as for a new key; null keeps what the key has."""

    overlap_s: Annotated[int, Field(ge=0, le=30 * 86400, description="0 ends it at once.")] = 86400
    expires_at: ExpiryTime = None


class ApiKeyAnswer(Answer):
    """A key as it may be shown again: `redacted` instead of its text. `last_used_at` is right to a minute."""

    id: UUID
    org_id: UUID
    project_id: UUID
    user_id: UUID | None
    service_account_id: UUID | None
    name: str
    redacted: str
    status: Literal["active", "revoked"]
    expires_at: datetime | None
    scopes: list[str] | None
    models: list[str] | None
    ip_networks: list[str] | None
    created_by: UUID
    created_at: datetime
    revoked_at: datetime | None
    rotated_at: datetime | None
    last_used_at: datetime | None
    version: int


class IssuedApiKeyAnswer(ApiKeyAnswer):
    """A new key. `key` is shown this once and cannot be had again."""

    key: str


@router.post("/projects/{project_id}/api-keys", status_code=201, responses={201: {"headers": IN_FORCE}})
async def create_api_key(
    *,
    project_id: UUID,
    body: NewApiKey,
    access: Annotated[Access, requires(Permission.API_KEYS_WRITE)],
    parts: PartsOf,
    origin: OriginOf,
    response: Response,
) -> IssuedApiKeyAnswer:
    """Issue a key in a project."""
    issued = await parts.api_keys.create(access, project_id, Wanted(**dict(body)), origin)
    say_in_force(response, issued.in_force)
    shown = ApiKeyAnswer.model_validate(issued.row)
    return IssuedApiKeyAnswer(**shown.model_dump(), key=issued.text)


@router.get("/projects/{project_id}/api-keys")
async def list_api_keys(
    project_id: UUID,
    access: Annotated[Access, requires(Permission.API_KEYS_READ)],
    parts: PartsOf,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[ApiKeyAnswer]:
    """The keys of a project, newest first, revoked ones too."""
    filters = f"api_keys {project_id}"
    after = parts.cursors.decode(cursor, filters)
    rows = await parts.api_keys.list_api_keys(access, project_id, after=after, limit=limit + 1)
    return parts.cursors.page([ApiKeyAnswer.model_validate(row) for row in rows], limit, filters)


@router.get("/api-keys/{key_id}")
async def get_api_key(
    key_id: UUID, access: Annotated[Access, requires(Permission.API_KEYS_READ)], parts: PartsOf
) -> ApiKeyAnswer:
    """One key."""
    return ApiKeyAnswer.model_validate(await parts.api_keys.get(access, key_id))


@router.patch("/api-keys/{key_id}", responses={200: {"headers": IN_FORCE}})
async def update_api_key(
    *,
    key_id: UUID,
    body: ApiKeyPatch,
    access: Annotated[Access, requires(Permission.API_KEYS_WRITE)],
    parts: PartsOf,
    origin: OriginOf,
    response: Response,
) -> ApiKeyAnswer:
    """Rename a key, or change its limits."""
    key, in_force = await parts.api_keys.update(access, key_id, body.changes(), origin)
    say_in_force(response, in_force)
    return ApiKeyAnswer.model_validate(key)


@router.post("/api-keys/{key_id}/rotate", responses={200: {"headers": IN_FORCE}})
async def rotate_api_key(
    *,
    key_id: UUID,
    body: Rotation,
    access: Annotated[Access, requires(Permission.API_KEYS_WRITE)],
    parts: PartsOf,
    origin: OriginOf,
    response: Response,
) -> IssuedApiKeyAnswer:
    """Give a key, one's own or a service account's, a new text. The one it had works on for a while; the key goes on."""
    issued = await parts.api_keys.rotate(access, key_id, timedelta(seconds=body.overlap_s), body.expires_at, origin)
    say_in_force(response, issued.in_force)
    shown = ApiKeyAnswer.model_validate(issued.row)
    return IssuedApiKeyAnswer(**shown.model_dump(), key=issued.text)


@router.delete("/api-keys/{key_id}", status_code=204, responses={204: {"headers": IN_FORCE}})
async def revoke_api_key(
    key_id: UUID,
    access: Annotated[Access, requires(Permission.API_KEYS_WRITE)],
    parts: PartsOf,
    origin: OriginOf,
    response: Response,
) -> None:
    """Revoke a key for good. Revoking it again changes nothing."""
    say_in_force(response, await parts.api_keys.revoke(access, key_id, origin))


class KeyDigest(Body):
    """The SHA-256 of a key, in hexadecimal."""

    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class KeyRecordAnswer(Answer):
    """`ias.contracts.api_keys.KeyRecord`, field by field."""

    version: int
    key_id: str
    org_id: str
    project_id: str
    user_id: str | None
    service_account_id: str | None
    status: Literal["active", "revoked", "suspended"]
    expires_at: int | None
    scopes: tuple[str, ...] | None
    models: tuple[str, ...] | None
    ip_networks: tuple[str, ...] | None


class TenantRecordAnswer(Answer):
    """`ias.contracts.api_keys.TenantRecord`, field by field."""

    version: int
    id: str
    status: Literal["active", "suspended", "deleted"]
    models: tuple[str, ...] | None
    ip_networks: tuple[str, ...] | None


class ResolvedKeyAnswer(Answer):
    """The key with its org and its project; all null where there is no such key."""

    key: KeyRecordAnswer | None
    org: TenantRecordAnswer | None
    project: TenantRecordAnswer | None


@internal_router.post("/api-keys/resolve")
async def resolve_api_key(
    body: KeyDigest, _: Annotated[Claims, internal("identity")], parts: PartsOf
) -> ResolvedKeyAnswer:
    """What is known of a key by its digest. Redis is told the same."""
    found = await parts.redis_records.find_by_digest(body.digest)
    if found is None:
        return ResolvedKeyAnswer(key=None, org=None, project=None)
    key, org, project = found
    return ResolvedKeyAnswer(
        key=KeyRecordAnswer.model_validate(key),
        org=TenantRecordAnswer.model_validate(org),
        project=TenantRecordAnswer.model_validate(project),
    )

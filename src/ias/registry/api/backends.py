"""`/registry/v1/models/{model_id}/backends` and `/registry/v1/backends`."""

from datetime import datetime
from typing import Annotated, ClassVar
from uuid import UUID

from pydantic import AfterValidator, Field, SecretStr, model_validator

from ias.contracts.permissions import Permission
from ias.contracts.routes import Group
from ias.kit.authorization import Access, requires
from ias.kit.cursors import CursorText, Limit, Page
from ias.kit.routing import Router, changes_nothing
from ias.kit.web import Answer, Body
from ias.registry.api.authors import author_of
from ias.registry.api.parts import BackendsPart, CursorsPart, VerificationsPart
from ias.registry.api.patches import Patch
from ias.registry.core.backends import Backends, NewBackend, Switch
from ias.registry.core.credentials import CREDENTIAL_LENGTH_MAX, REFERENCE_PATTERN, is_sendable
from ias.registry.store.backends import BackendStatus, Engine

router = Router(prefix="/registry/v1", tags=["backends"])

WEIGHT_MAX = 1000
TIER_MAX = 9
CONCURRENCY_MAX = 100_000


def _printable(credential: SecretStr) -> SecretStr:
    if not is_sendable(credential.get_secret_value()):
        raise ValueError("must be printable ASCII without spaces, as it travels in a header")
    return credential


Url = Annotated[
    str,
    Field(
        min_length=1,
        max_length=2048,
        description="Base URL with the version path, e.g. `http://10.0.0.7:8000/v1`; without a path, `/v1` is taken.",
    ),
]
Weight = Annotated[int, Field(ge=0, le=WEIGHT_MAX, description="Share of the traffic among the model's backends.")]
UpstreamModel = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        description="The name the backend itself knows the model by.",
    ),
]
Tier = Annotated[
    int, Field(ge=0, le=TIER_MAX, description="The lowest tier that has a backend which can serve is used.")
]
ConcurrencyMax = Annotated[
    int,
    Field(
        ge=1, le=CONCURRENCY_MAX, description="Requests at a time that it bears, over all gateways; null is unknown."
    ),
]
Environment = Annotated[
    str,
    Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9._-]+$", description="Where it runs: a label of yours."),
]
Reason = Annotated[
    str, Field(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]+$", description="Why; kept with the change.")
]
Credential = Annotated[
    SecretStr,
    Field(
        max_length=CREDENTIAL_LENGTH_MAX,
        description="API key the backend asks for. Sealed at once and never shown again.",
    ),
    AfterValidator(_printable),
]
CredentialFrom = Annotated[
    str,
    Field(
        pattern=REFERENCE_PATTERN,
        description="Where the registry finds the API key instead: `env:IAS_BACKEND_CREDENTIAL_…`, a variable of its environment,"
        " or `file:NAME` in the directory IAS_REGISTRY_CREDENTIALS_DIR. Gateways follow within seconds when it is another.",
    ),
]


def _check_one_credential(credential: SecretStr | None, credential_from: str | None) -> None:
    if credential is not None and credential_from is not None:
        raise ValueError("credential and credential_from exclude each other")


class CreateBackend(Body, strict=True):
    """A new backend of a model."""

    url: Url
    weight: Weight = 1
    upstream_model: UpstreamModel | None = Field(None, description="Null: the model's public name.")
    credential: Credential | None = None
    credential_from: CredentialFrom | None = None
    engine: Engine = Field("openai", description="What serves there; tells what the gateway may ask of it.")
    tier: Tier = 0
    group: Group = Field("stable", description="The route policy says which share of the requests canaries get.")
    concurrency_max: ConcurrencyMax | None = None
    environment: Environment | None = None
    draining: bool = Field(False, description="Finishes what it has and gets nothing new.")
    status: BackendStatus = Field("enabled", description="A disabled backend gets nothing.")

    @model_validator(mode="after")
    def _take_one_credential(self) -> "CreateBackend":
        _check_one_credential(self.credential, self.credential_from)
        return self


class PatchBackend(Patch):
    """What changes of a backend. A null `credential` removes it. To disable or drain it are actions of their own."""

    nullable: ClassVar[frozenset[str]] = frozenset({"credential", "credential_from", "concurrency_max", "environment"})

    url: Url | None = None
    weight: Weight | None = None
    upstream_model: UpstreamModel | None = None
    credential: Credential | None = None
    credential_from: CredentialFrom | None = None
    engine: Engine | None = None
    tier: Tier | None = None
    group: Group | None = None
    concurrency_max: ConcurrencyMax | None = None
    environment: Environment | None = None

    @model_validator(mode="after")
    def _take_one_credential(self) -> "PatchBackend":
        _check_one_credential(self.credential, self.credential_from)
        return self


class SwitchBackend(Body, strict=True):
    """Why a backend is switched."""

    reason: Reason | None = None


class BackendAnswer(Answer):
    """A backend."""

    id: UUID
    model_id: UUID
    url: str
    weight: int
    upstream_model: str
    engine: Engine
    has_credential: bool
    credential_from: str | None
    tier: int
    group: Group
    concurrency_max: int | None
    environment: str | None
    draining: bool
    status: BackendStatus
    version: int
    created_at: datetime
    updated_at: datetime


class UsageAnswer(Answer):
    """Tokens the backend says the completion used."""

    input_tokens: int
    cached_input_tokens: int
    output_tokens: int


class VerificationAnswer(Answer):
    """What came of one completion that was sent through the backend."""

    backend_id: UUID
    ok: bool
    status: int | None
    latency_ms: float
    usage: UsageAnswer | None
    detail: str


Reader = Annotated[Access, requires(Permission.BACKENDS_READ)]
Writer = Annotated[Access, requires(Permission.BACKENDS_WRITE)]


@router.post("/models/{model_id}/backends", status_code=201)
async def create_backend(
    *,
    model_id: UUID,
    body: CreateBackend,
    access: Writer,
    backends: BackendsPart,
) -> BackendAnswer:
    """Add a backend to a model; gateways send to it within a second."""
    author = author_of(access)
    new = NewBackend(
        url=body.url,
        weight=body.weight,
        upstream_model=body.upstream_model,
        engine=body.engine,
        credential=body.credential.get_secret_value() if body.credential else None,
        credential_from=body.credential_from,
        tier=body.tier,
        group=body.group,
        concurrency_max=body.concurrency_max,
        environment=body.environment,
        draining=body.draining,
        status=body.status,
    )
    backend = await backends.create_backend(model_id, new, author)
    return BackendAnswer.model_validate(backend)


@router.get("/models/{model_id}/backends")
async def list_backends(
    *,
    model_id: UUID,
    access: Reader,
    backends: BackendsPart,
    cursors: CursorsPart,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[BackendAnswer]:
    """List a model's backends, newest first."""
    access.on_platform()
    filters = f"backends model_id={model_id}"
    rows = await backends.list_backends(model_id, after=cursors.decode(cursor, filters), limit=limit + 1)
    return cursors.page([BackendAnswer.model_validate(row) for row in rows], limit, filters)


@router.get("/backends/{backend_id}")
async def get_backend(backend_id: UUID, access: Reader, backends: BackendsPart) -> BackendAnswer:
    """Show a backend."""
    access.on_platform()
    return BackendAnswer.model_validate(await backends.get_backend(backend_id))


@router.patch("/backends/{backend_id}")
async def update_backend(
    *,
    backend_id: UUID,
    body: PatchBackend,
    access: Writer,
    backends: BackendsPart,
) -> BackendAnswer:
    """Change what was sent of a backend; gateways know within a second."""
    author = author_of(access)
    fields = body.sent_fields()
    if body.credential is not None:
        fields["credential"] = body.credential.get_secret_value()
    return BackendAnswer.model_validate(await backends.update_backend(backend_id, fields, author))


@router.delete("/backends/{backend_id}", status_code=204)
async def delete_backend(backend_id: UUID, access: Writer, backends: BackendsPart) -> None:
    """Take a backend out of every route, and forget its credential."""
    await backends.delete_backend(backend_id, author_of(access))


@router.post("/backends/{backend_id}/disable")
async def disable_backend(
    *, backend_id: UUID, access: Writer, backends: BackendsPart, body: SwitchBackend | None = None
) -> BackendAnswer:
    """Throw the kill switch: within a second the backend gets nothing more, and what it serves is cut."""
    return await _switch(backends, backend_id, "disable", body, access)


@router.post("/backends/{backend_id}/enable")
async def enable_backend(
    *, backend_id: UUID, access: Writer, backends: BackendsPart, body: SwitchBackend | None = None
) -> BackendAnswer:
    """Undo `disable`."""
    return await _switch(backends, backend_id, "enable", body, access)


@router.post("/backends/{backend_id}/drain")
async def drain_backend(
    *, backend_id: UUID, access: Writer, backends: BackendsPart, body: SwitchBackend | None = None
) -> BackendAnswer:
    """Give the backend nothing new, within a second; what it serves goes on."""
    return await _switch(backends, backend_id, "drain", body, access)


@router.post("/backends/{backend_id}/resume")
async def resume_backend(
    *, backend_id: UUID, access: Writer, backends: BackendsPart, body: SwitchBackend | None = None
) -> BackendAnswer:
    """Undo `drain`."""
    return await _switch(backends, backend_id, "resume", body, access)


@router.post(
    "/backends/{backend_id}/verify",
    openapi_extra=changes_nothing("it sends a completion through the backend and reports"),
)
async def verify_backend(backend_id: UUID, access: Writer, verifications: VerificationsPart) -> VerificationAnswer:
    """Send one small completion through the backend and report. A backend that fails is a 200 with `ok: false`."""
    access.on_platform()
    return VerificationAnswer.model_validate(await verifications.verify_backend(backend_id))


async def _switch(
    backends: Backends, backend_id: UUID, switch: Switch, body: SwitchBackend | None, access: Access
) -> BackendAnswer:
    reason = body.reason if body else None
    return BackendAnswer.model_validate(await backends.switch_backend(backend_id, switch, reason, author_of(access)))

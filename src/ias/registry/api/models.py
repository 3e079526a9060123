"""`/registry/v1/models`."""

from datetime import datetime
from typing import Annotated, Any, ClassVar, TypeVar
from uuid import UUID

from fastapi import Query
from pydantic import AfterValidator, Field

from ias.contracts.permissions import Permission
from ias.contracts.routes import Capability
from ias.kit.authorization import Access, requires
from ias.kit.cursors import CursorText, Limit, Page
from ias.kit.moments import Moment
from ias.kit.routing import Router
from ias.kit.web import Answer, Body
from ias.registry.api.authors import author_of
from ias.registry.api.parts import CursorsPart, ModelsPart
from ias.registry.api.patches import Patch
from ias.registry.core.models import NewModel, Reach
from ias.registry.store.models import Model, ModelStatus

router = Router(prefix="/registry/v1/models", tags=["models"])

TOKENS_MAX = 100_000_000
ALIASES_MAX = 50
ORGS_MAX = 1000

Item = TypeVar("Item")

ModelName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        pattern=r"^[A-Za-z0-9._:/@+~-]+$",
        description="The name clients ask for: letters, digits and `._:/@+~-`.",
    ),
]


def _once(items: list[Item]) -> list[Item]:
    if len(set(items)) < len(items):
        raise ValueError("may not hold anything twice")
    return items


Aliases = Annotated[
    list[ModelName],
    Field(max_length=ALIASES_MAX, description="Other names for it. No two models share a name or an alias."),
    AfterValidator(_once),
]
Capabilities = Annotated[
    list[Capability],
    Field(max_length=20, description="What it is for; endpoints that are not among them refuse it. Empty: no limits."),
    AfterValidator(_once),
]
OrgIds = Annotated[
    list[Annotated[UUID, Field(strict=False)]],
    Field(max_length=ORGS_MAX, description="The orgs that may see and use it; null is all."),
    AfterValidator(_once),
]
SunsetAt = Annotated[
    Moment, Field(strict=False, description="From then on requests are refused. For models that are not enabled.")
]
Replacement = Annotated[
    ModelName, Field(description="Public name of the model to use instead. For models that are not enabled.")
]
Tokens = Annotated[int, Field(ge=1, le=TOKENS_MAX)]


class CreateModel(Body, strict=True):
    """A new model."""

    name: ModelName
    context_length: Tokens = Field(description="Tokens of prompt and answer together.")
    output_tokens_max: Tokens | None = Field(
        None, description="Tokens of one answer at most; null: what the context holds."
    )
    aliases: Aliases = Field(default_factory=list)
    capabilities: Capabilities = Field(default_factory=list)
    org_ids: OrgIds | None = None
    status: ModelStatus = Field(
        "enabled", description="A disabled model is unknown to clients; a deprecated one serves them and says so."
    )
    sunset_at: SunsetAt | None = None
    replacement: Replacement | None = None


class PatchModel(Patch):
    """What changes of a model. The name does not: prices, budgets and clients know the model by it."""

    nullable: ClassVar[frozenset[str]] = frozenset({"output_tokens_max", "org_ids", "sunset_at", "replacement"})

    context_length: Tokens | None = None
    output_tokens_max: Tokens | None = None
    aliases: Aliases | None = None
    capabilities: Capabilities | None = None
    org_ids: OrgIds | None = None
    status: ModelStatus | None = None
    sunset_at: SunsetAt | None = None
    replacement: Replacement | None = None

    def sent_fields(self) -> dict[str, Any]:
        """The fields that were sent, by name; lists as tuples."""
        return {
            name: tuple(value) if isinstance(value, list) else value for name, value in super().sent_fields().items()
        }


class ModelAnswer(Answer):
    """A model. Members see of `org_ids` their own orgs alone."""

    id: UUID
    name: str
    context_length: int
    output_tokens_max: int | None
    aliases: list[str]
    capabilities: list[Capability]
    org_ids: list[UUID] | None
    status: ModelStatus
    deprecated_at: datetime | None
    sunset_at: datetime | None
    replacement: str | None
    version: int
    created_at: datetime
    updated_at: datetime


Reader = Annotated[Access, requires(Permission.MODELS_READ)]
Writer = Annotated[Access, requires(Permission.MODELS_WRITE)]


@router.post("", status_code=201)
async def create_model(
    *,
    body: CreateModel,
    access: Writer,
    models: ModelsPart,
) -> ModelAnswer:
    """Add a model. It can be asked for as soon as it has a backend and a price."""
    author = author_of(access)
    new = NewModel(
        name=body.name,
        context_length=body.context_length,
        output_tokens_max=body.output_tokens_max,
        aliases=tuple(body.aliases),
        capabilities=tuple(body.capabilities),
        org_ids=None if body.org_ids is None else tuple(body.org_ids),
        status=body.status,
        sunset_at=body.sunset_at,
        replacement=body.replacement,
    )
    return _render(await models.create_model(new, author), None)


@router.get("")
async def list_models(
    *,
    access: Reader,
    models: ModelsPart,
    cursors: CursorsPart,
    name: Annotated[str | None, Query(max_length=200, description="Only the model of exactly this name.")] = None,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[ModelAnswer]:
    """List the models that the caller's orgs may see, newest first."""
    filters = f"models name={name}"
    reach = _reach_of(access)
    after = cursors.decode(cursor, filters)
    rows = await models.list_models(seen_by=reach, name=name, after=after, limit=limit + 1)
    return cursors.page([_render(row, reach) for row in rows], limit, filters)


@router.get("/{model_id}")
async def get_model(model_id: UUID, access: Reader, models: ModelsPart) -> ModelAnswer:
    """Show a model."""
    reach = _reach_of(access)
    return _render(await models.get_model(model_id, seen_by=reach), reach)


@router.patch("/{model_id}")
async def update_model(
    *,
    model_id: UUID,
    body: PatchModel,
    access: Writer,
    models: ModelsPart,
) -> ModelAnswer:
    """Change what was sent of a model; gateways know within a second."""
    author = author_of(access)
    return _render(await models.update_model(model_id, body.sent_fields(), author), None)


@router.delete("/{model_id}", status_code=204)
async def delete_model(model_id: UUID, access: Writer, models: ModelsPart) -> None:
    """Take a model and its backends away. Its names are free again."""
    await models.delete_model(model_id, author_of(access))


def _reach_of(access: Access) -> Reach:
    actor = access.actor
    if actor.platform_admin:
        return None
    return frozenset(UUID(org_id) for org_id, _, role in actor.grants if actor.allows(role, access.permission))


def _render(model: Model, reach: Reach) -> ModelAnswer:
    answer = ModelAnswer.model_validate(model)
    if reach is None or model.org_ids is None:
        return answer
    return answer.model_copy(update={"org_ids": [org_id for org_id in model.org_ids if org_id in reach]})

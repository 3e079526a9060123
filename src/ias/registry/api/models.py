"""`/registry/v1/models`."""

from datetime import datetime
from typing import Annotated, ClassVar
from uuid import UUID

from fastapi import Depends, Query, Request
from pydantic import Field

from ias.contracts.permissions import Permission
from ias.kit.authorization import Access, requires
from ias.kit.cursors import Cursors, CursorText, Limit, Page
from ias.kit.routing import Router
from ias.kit.web import Answer, Body
from ias.registry.api.authors import author_of
from ias.registry.api.patches import Patch
from ias.registry.core.models import Models, NewModel
from ias.registry.store.models import ModelStatus

router = Router(prefix="/registry/v1/models", tags=["models"])

TOKENS_MAX = 100_000_000

ModelName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        pattern=r"^[A-Za-z0-9._:/@+~-]+$",
        description="The name clients ask for: letters, digits and `._:/@+~-`.",
    ),
]
Tokens = Annotated[int, Field(ge=1, le=TOKENS_MAX)]


class CreateModel(Body, strict=True):
    """A new model."""

    name: ModelName
    context_length: Tokens = Field(description="Tokens of prompt and answer together.")
    output_tokens_max: Tokens | None = Field(
        None, description="Tokens of one answer at most; null: what the context holds."
    )
    status: ModelStatus = Field("enabled", description="A disabled model is unknown to clients.")


class PatchModel(Patch):
    """What changes of a model. The name does not: prices, budgets and clients know the model by it."""

    nullable: ClassVar[frozenset[str]] = frozenset({"output_tokens_max"})

    context_length: Tokens | None = None
    output_tokens_max: Tokens | None = None
    status: ModelStatus | None = None


class ModelAnswer(Answer):
    """A model."""

    id: UUID
    name: str
    context_length: int
    output_tokens_max: int | None
    status: ModelStatus
    version: int
    created_at: datetime
    updated_at: datetime


async def _models(request: Request) -> Models:
    models: Models = request.app.state.models
    return models


async def _cursors(request: Request) -> Cursors:
    cursors: Cursors = request.app.state.cursors
    return cursors


Reader = Annotated[Access, requires(Permission.MODELS_READ)]
Writer = Annotated[Access, requires(Permission.MODELS_WRITE)]
TheModels = Annotated[Models, Depends(_models)]


@router.post("", status_code=201)
async def create_model(
    *,
    body: CreateModel,
    access: Writer,
    models: TheModels,
) -> ModelAnswer:
    """Add a model. It can be asked for as soon as it has a backend and a price."""
    author = author_of(access)
    new = NewModel(
        name=body.name,
        context_length=body.context_length,
        output_tokens_max=body.output_tokens_max,
        status=body.status,
    )
    model = await models.create_model(new, author)
    return ModelAnswer.model_validate(model)


@router.get("")
async def list_models(
    *,
    _: Reader,
    models: TheModels,
    cursors: Annotated[Cursors, Depends(_cursors)],
    name: Annotated[str | None, Query(max_length=200, description="Only the model of exactly this name.")] = None,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[ModelAnswer]:
    """List models, newest first."""
    filters = f"models name={name}"
    rows = await models.list_models(name=name, after=cursors.decode(cursor, filters), limit=limit + 1)
    return cursors.page([ModelAnswer.model_validate(row) for row in rows], limit, filters)


@router.get("/{model_id}")
async def get_model(model_id: UUID, _: Reader, models: TheModels) -> ModelAnswer:
    """Show a model."""
    return ModelAnswer.model_validate(await models.get_model(model_id))


@router.patch("/{model_id}")
async def update_model(
    *,
    model_id: UUID,
    body: PatchModel,
    access: Writer,
    models: TheModels,
) -> ModelAnswer:
    """Change what was sent of a model; gateways know within a second."""
    author = author_of(access)
    return ModelAnswer.model_validate(await models.update_model(model_id, body.sent_fields(), author))


@router.delete("/{model_id}", status_code=204)
async def delete_model(model_id: UUID, access: Writer, models: TheModels) -> None:
    """Take a model and its backends away. Its name is free again."""
    await models.delete_model(model_id, author_of(access))

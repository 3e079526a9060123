"""The rules of models."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from ias.contracts.ids import uuid7
from ias.kit.database import Database
from ias.kit.problems import ConflictError, FieldError, InvalidError, NotFoundError
from ias.kit.writes import check_version
from ias.registry.core.backends import delete_backends_of
from ias.registry.core.changes import Author, Change, Changes
from ias.registry.store.models import (
    Model,
    ModelStatus,
    find_model,
    find_model_by_name,
    insert_model,
    list_models,
    replace_model,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewModel:
    """What a new model is made of."""

    name: str
    context_length: int
    output_tokens_max: int | None
    status: ModelStatus


class Models:
    """Models, and what may be done to them."""

    def __init__(self, database: Database, changes: Changes) -> None:
        self._database = database
        self._changes = changes

    async def create_model(self, new: NewModel, author: Author) -> Model:
        """A new model.

        Raises:
            ConflictError: another model has the name.
            InvalidError: the fields contradict each other.
        """
        async with self._changes.make(author) as change:
            if await find_model_by_name(change.connection, new.name):
                raise ConflictError(f"There is a model named {new.name!r} already.", code="name_taken")
            model = Model(
                id=uuid7(),
                name=new.name,
                context_length=new.context_length,
                output_tokens_max=new.output_tokens_max,
                status=new.status,
                version=1,
                created_at=change.at,
                updated_at=change.at,
                deleted_at=None,
            )
            _check(model)
            await insert_model(change.connection, model)
            change.record("model.create", model.id, None, _describe(model))
        return model

    async def get_model(self, model_id: UUID) -> Model:
        """The model. Raises NotFoundError."""
        async with self._database.transaction() as connection:
            return _present(await find_model(connection, model_id))

    async def list_models(self, *, name: str | None, after: UUID | None, limit: int) -> list[Model]:
        """Models, newest first, after an id."""
        async with self._database.transaction() as connection:
            return await list_models(connection, name=name, after=after, limit=limit)

    async def update_model(self, model_id: UUID, fields: dict[str, Any], author: Author) -> Model:
        """The model with the given fields replaced; nothing happens when they are what they were.

        Raises:
            NotFoundError: there is no such model.
            PreconditionFailedError: the change is meant for another version.
            InvalidError: the fields contradict each other.
        """
        async with self._changes.make(author) as change:
            model = _present(await find_model(change.connection, model_id))
            check_version(model.version)
            if replace(model, **fields) == model:
                return model
            updated = replace(model, **fields, version=model.version + 1, updated_at=change.at)
            _check(updated)
            await replace_model(change.connection, updated)
            change.record("model.update", model.id, _describe(model), _describe(updated))
        return updated

    async def delete_model(self, model_id: UUID, author: Author) -> None:
        """Take the model and its backends away; its name is free again. Raises as `update_model` does."""
        async with self._changes.make(author) as change:
            model = _present(await find_model(change.connection, model_id))
            check_version(model.version)
            await delete_backends_of(change, model_id)
            await _delete(change, model, change.at)


async def _delete(change: Change, model: Model, at: datetime) -> None:
    deleted = replace(model, version=model.version + 1, updated_at=at, deleted_at=at)
    await replace_model(change.connection, deleted)
    change.record("model.delete", model.id, _describe(model), None)


def _present(model: Model | None) -> Model:
    if model is None:
        raise NotFoundError
    return model


def _check(model: Model) -> None:
    if model.output_tokens_max is not None and model.output_tokens_max > model.context_length:
        detail = "may not be above context_length"
        raise InvalidError(
            f"output_tokens_max {detail}.", errors=[FieldError(pointer="/output_tokens_max", detail=detail)]
        )


def _describe(model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "context_length": model.context_length,
        "output_tokens_max": model.output_tokens_max,
        "status": model.status,
    }

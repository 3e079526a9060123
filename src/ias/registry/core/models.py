"""The rules of models."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from ias.contracts.ids import uuid7
from ias.contracts.routes import Capability
from ias.kit.database import Database
from ias.kit.problems import ConflictError, FieldError, InvalidError, NotFoundError
from ias.kit.writes import check_version
from ias.registry.core.adapters import delete_adapters_of
from ias.registry.core.backends import delete_backends_of
from ias.registry.core.changes import Author, Change, Changes
from ias.registry.core.route_policies import insert_first_policy
from ias.registry.store.models import (
    Model,
    ModelStatus,
    find_model,
    find_model_by_any_name,
    find_replaced_model,
    insert_model,
    list_models,
    replace_model,
)

Reach = frozenset[UUID] | None
"""The orgs whose eyes a reader has; None sees everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewModel:
    """What a new model is made of."""

    name: str
    context_length: int
    output_tokens_max: int | None
    aliases: tuple[str, ...]
    capabilities: tuple[Capability, ...]
    org_ids: tuple[UUID, ...] | None
    status: ModelStatus
    sunset_at: datetime | None
    replacement: str | None


class Models:
    """Models, and what may be done to them."""

    def __init__(self, database: Database, changes: Changes) -> None:
        self._database = database
        self._changes = changes

    async def create_model(self, new: NewModel, author: Author) -> Model:
        """A new model.

        Raises:
            ConflictError: another model has the name, or one of the aliases.
            InvalidError: the fields contradict each other, or name a replacement that is none.
        """
        async with self._changes.make(author) as change:
            model = Model(
                id=uuid7(),
                name=new.name,
                context_length=new.context_length,
                output_tokens_max=new.output_tokens_max,
                aliases=new.aliases,
                capabilities=new.capabilities,
                org_ids=new.org_ids,
                status=new.status,
                deprecated_at=change.at if new.status == "deprecated" else None,
                sunset_at=new.sunset_at,
                replacement=new.replacement,
                version=1,
                created_at=change.at,
                updated_at=change.at,
                deleted_at=None,
            )
            await _check(change, model, before=None)
            await insert_model(change.connection, model)
            await insert_first_policy(change, model.id)
            change.record("model.create", model.id, None, _describe(model))
        return model

    async def get_model(self, model_id: UUID, *, seen_by: Reach = None) -> Model:
        """The model. Raises NotFoundError, also for one that none of the orgs may see."""
        async with self._database.transaction() as connection:
            model = _present(await find_model(connection, model_id))
        if seen_by is not None and model.org_ids is not None and seen_by.isdisjoint(model.org_ids):
            raise NotFoundError
        return model

    async def list_models(self, *, seen_by: Reach, name: str | None, after: UUID | None, limit: int) -> list[Model]:
        """Models that one of the orgs may see, newest first, after an id."""
        async with self._database.transaction() as connection:
            return await list_models(connection, seen_by=seen_by, name=name, after=after, limit=limit)

    async def update_model(self, model_id: UUID, fields: dict[str, Any], author: Author) -> Model:
        """The model with the given fields replaced; nothing happens when they are what they were.

        Raises:
            NotFoundError: there is no such model.
            PreconditionFailedError: the change is meant for another version.
            ConflictError: another model has one of the aliases.
            InvalidError: the fields contradict each other, or name a replacement that is none.
        """
        async with self._changes.make(author) as change:
            model = _present(await find_model(change.connection, model_id))
            check_version(model.version)
            if replace(model, **fields) == model:
                return model
            updated = _date(replace(model, **fields, version=model.version + 1, updated_at=change.at))
            await _check(change, updated, before=model)
            await replace_model(change.connection, updated)
            change.record("model.update", model.id, _describe(model), _describe(updated))
        return updated

    async def delete_model(self, model_id: UUID, author: Author) -> None:
        """Take the model and its backends away; its names are free again.

        Raises as `update_model` does, and:
            ConflictError: another model names it as its replacement, or has its last canary among the adapters of its backends.
        """
        async with self._changes.make(author) as change:
            model = _present(await find_model(change.connection, model_id))
            check_version(model.version)
            replaced = await find_replaced_model(change.connection, model.name)
            if replaced:
                raise ConflictError(f"{replaced.name!r} names it as its replacement.", code="is_replacement")
            await delete_backends_of(change, model_id)
            await delete_adapters_of(change, model_id=model_id)
            await _delete(change, model, change.at)


async def _delete(change: Change, model: Model, at: datetime) -> None:
    deleted = replace(model, version=model.version + 1, updated_at=at, deleted_at=at)
    await replace_model(change.connection, deleted)
    change.record("model.delete", model.id, _describe(model), None)


def _present(model: Model | None) -> Model:
    if model is None:
        raise NotFoundError
    return model


def _date(model: Model) -> Model:
    """The model with the moment since which it is deprecated. Disabling it for a while does not make that another."""
    if model.status == "deprecated" and model.deprecated_at is None:
        return replace(model, deprecated_at=model.updated_at)
    if model.status == "enabled":
        return replace(model, deprecated_at=None)
    return model


async def _check(change: Change, model: Model, *, before: Model | None) -> None:
    """What the fields must not say. Aliases and replacements that are kept as they were are not looked up again."""
    if model.output_tokens_max is not None and model.output_tokens_max > model.context_length:
        raise _invalid("output_tokens_max", "may not be above context_length")
    for field in ("sunset_at", "replacement"):
        if model.status == "enabled" and getattr(model, field) is not None:
            raise _invalid(field, "is for models that are deprecated or disabled; set it to null")
    kept = {before.name, *before.aliases} if before else set()
    await _check_names(change, model, {model.name, *model.aliases} - kept)
    if model.replacement is not None and (before is None or before.replacement != model.replacement):
        await _check_replacement(change, model)


async def _check_names(change: Change, model: Model, added: set[str]) -> None:
    if model.name in model.aliases:
        raise _invalid("aliases", "may not hold the model's own name")
    other = await find_model_by_any_name(change.connection, sorted(added)) if added else None
    if other:
        taken = sorted(added & {other.name, *other.aliases})
        raise ConflictError(f"{taken[0]!r} is a name of the model {other.name!r} already.", code="name_taken")


async def _check_replacement(change: Change, model: Model) -> None:
    if model.replacement in {model.name, *model.aliases}:
        raise _invalid("replacement", "may not be the model itself")
    found = await find_model_by_any_name(change.connection, [str(model.replacement)])
    if found is None or found.name != model.replacement:
        raise _invalid("replacement", "is not the public name of a model")


def _invalid(field: str, detail: str) -> InvalidError:
    return InvalidError(f"{field} {detail}.", errors=[FieldError(pointer=f"/{field}", detail=detail)])


def _describe(model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "context_length": model.context_length,
        "output_tokens_max": model.output_tokens_max,
        "aliases": [*model.aliases],
        "capabilities": [*model.capabilities],
        "org_ids": None if model.org_ids is None else [str(org_id) for org_id in model.org_ids],
        "status": model.status,
        "sunset_at": None if model.sunset_at is None else model.sunset_at.isoformat(),
        "replacement": model.replacement,
    }

"""Models, their route policies and their backends, brought to what a file says: a file that lives in Git, applied by a pipeline.

What the file does not speak of stays: fields, models, and (unless pruning was asked for) backends and adapters of its models. Kill
switch and drain are no part of it: who used them had a reason.
"""

import importlib
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from ias.cli.failures import CommandError
from ias.cli.management_api import ManagementApi

_FILE_BYTES_MAX = 1_000_000
_MODELS = "/registry/v1/models"
_BACKENDS = "/registry/v1/backends"
_ADAPTERS = "/registry/v1/adapters"
_BY_OTHERS = frozenset({"canary_percent", "group", "replacement"})
"""Fields that are right or wrong by other changes of the file, and so cannot be tried alone."""

Document = Mapping[str, Any]


def read_models(file: Path) -> list[Document]:
    """The models that a YAML or JSON file declares.

    Raises:
        CommandError: it is too large, or not what it should be.
    """
    text = file.read_bytes()
    if len(text) > _FILE_BYTES_MAX:
        raise CommandError(f"{file} is larger than {_FILE_BYTES_MAX} bytes")
    yaml = importlib.import_module("yaml")  # what JSON writes is YAML as well
    try:
        document = _with_moments_as_text(yaml.safe_load(text))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CommandError(f"{file} is no YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise CommandError(f"{file} is nested too deeply, or holds itself") from error
    models = document.get("models") if isinstance(document, dict) else None
    if not isinstance(models, list) or set(document) != {"models"}:
        raise CommandError(f"{file} must hold a list under `models`, and nothing else")
    for number, model in enumerate(models):
        _check(model, f"{file}: /models/{number}")
    names = [model["name"] for model in models]
    if len(set(names)) < len(names):
        raise CommandError(f"{file} names a model twice")
    return models


def _with_moments_as_text(value: Any) -> Any:
    """YAML reads a moment as such; the API writes it as text, in UTC."""
    if isinstance(value, dict):
        return {name: _with_moments_as_text(held) for name, held in value.items()}
    if isinstance(value, list):
        return [_with_moments_as_text(held) for held in value]
    if isinstance(value, date):
        if not isinstance(value, datetime) or value.tzinfo is None:
            raise CommandError(f"{value} says no time of day and no zone, as 2030-01-01T00:00:00Z does")
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return value


def _check(model: Any, where: str) -> None:
    if not isinstance(model, dict) or not isinstance(model.get("name"), str):
        raise CommandError(f"{where} must be a model with a `name`")
    if not isinstance(model.get("route_policy", {}), dict):
        raise CommandError(f"{where}/route_policy must hold fields")
    backends = model.get("backends", [])
    if not isinstance(backends, list):
        raise CommandError(f"{where}/backends must be a list")
    for number, backend in enumerate(backends):
        if not isinstance(backend, dict) or not isinstance(backend.get("url"), str):
            raise CommandError(f"{where}/backends/{number} must be a backend with a `url`")
        if "credential" in backend:
            raise CommandError(f"{where}/backends/{number}: a secret is not for a file; say `credential_from`")
        if not isinstance(backend.get("adapters", {}), dict):
            raise CommandError(f"{where}/backends/{number}/adapters must hold `adapter: model`")


class DesiredModels:
    """Compares with what there is and changes it, a line for each change; dry, it changes nothing."""

    def __init__(self, api: ManagementApi, *, dry_run: bool, prune: bool) -> None:
        self._api = api
        self._dry_run = dry_run
        self._prune = prune
        self._models = {model["name"]: model for model in api.list(_MODELS)}

    def apply(self, models: list[Document]) -> Iterator[str]:
        """The changes, each told once it was made. Applying what was applied before is none.

        Raises:
            CommandError: the registry refuses one; those before it stay.
        """
        for model in models:
            fields = {name: model[name] for name in model.keys() - {"name", "route_policy", "backends"}}
            yield from self._apply_model(model["name"], fields)
        policies = [(model["name"], model.get("route_policy", {})) for model in models]
        for name, policy in policies:
            if not policy.get("canary_percent"):  # before the last canary goes
                yield from self._apply_policy(name, policy)
        for model in models:
            if "backends" in model:
                yield from self._apply_backends(model["name"], model["backends"])
        for name, policy in policies:
            if policy.get("canary_percent"):  # after the first one has come
                yield from self._apply_policy(name, policy)

    def _apply_model(self, name: str, fields: Document) -> Iterator[str]:
        known = self._models.get(name)
        if known is not None:
            yield from self._patch(f"model {name}", f"{_MODELS}/{known['id']}", known, fields)
            return
        told = self._api.post(_MODELS, {"name": name, **self._tried(fields)}, dry_run=self._dry_run)
        if not self._dry_run:
            self._models[name] = told
        yield f"+ model {name}"

    def _apply_policy(self, name: str, fields: Document) -> Iterator[str]:
        known = self._models.get(name)
        if not fields:
            return
        if known is None:
            yield f"~ route policy of {name}: {_show(fields)}"
            return
        path = f"{_MODELS}/{known['id']}/route-policy"
        yield from self._patch(f"route policy of {name}", path, self._api.get(path), fields)

    def _apply_backends(self, name: str, backends: list[Document]) -> Iterator[str]:
        model = self._models.get(name)
        if model is None:  # it would be made
            for backend in backends:
                where = f"backend {backend['url']} of {name}"
                yield f"+ {where}"
                yield from self._apply_adapters(where, None, backend.get("adapters", {}))
            return
        path = f"{_MODELS}/{model['id']}/backends"
        unmatched = list(self._api.list(path))
        for backend in backends:
            fields = {field: value for field, value in backend.items() if field != "adapters"}
            known = self._take_known(path, fields, unmatched)
            where = f"backend {backend['url']} of {name}"
            if known is None:
                known = self._api.post(path, fields, dry_run=self._dry_run)
                yield f"+ {where}"
            else:
                changeable = {field: value for field, value in fields.items() if field != "url"}
                yield from self._patch(where, f"{_BACKENDS}/{known['id']}", known, changeable)
            if "adapters" in backend:
                yield from self._apply_adapters(where, known.get("id"), backend["adapters"])
        for backend in unmatched if self._prune else ():
            self._delete(f"{_BACKENDS}/{backend['id']}")
            yield f"- backend {backend['url']} of {name}"

    def _take_known(self, path: str, fields: Document, unmatched: list[dict[str, Any]]) -> dict[str, Any] | None:
        """The backend at that URL, whatever its spelling, that serves the same upstream model; it is no more unmatched."""
        told = self._api.post(path, {**fields, "credential_from": None}, dry_run=True)
        wanted = told["changes"][0]["after"]
        for backend in unmatched:
            if (backend["url"], backend["upstream_model"]) == (wanted["url"], wanted["upstream_model"]):
                unmatched.remove(backend)
                return backend
        return None

    def _apply_adapters(self, where: str, backend_id: str | None, adapters: Mapping[str, str]) -> Iterator[str]:
        path = f"{_BACKENDS}/{backend_id}/adapters"
        known = {} if backend_id is None else {one["name"]: one for one in self._api.list(path)}
        for adapter, model in adapters.items():
            served = self._models.get(model)
            found = known.pop(adapter, None)
            if found is not None and served is not None and found["model_id"] == served["id"]:
                continue
            if served is None and not self._dry_run:
                raise CommandError(f"{where}: there is no model {model!r} for its adapter {adapter!r}")
            if found is not None:
                self._delete(f"{_ADAPTERS}/{found['id']}")
            if not self._dry_run and served is not None:
                self._api.post(path, {"name": adapter, "model_id": served["id"]})
            yield f"{'~' if found else '+'} adapter {adapter} of {where}, served as {model}"
        for adapter, found in known.items() if self._prune else ():
            self._delete(f"{_ADAPTERS}/{found['id']}")
            yield f"- adapter {adapter} of {where}"

    def _patch(self, what: str, path: str, known: Document, fields: Document) -> Iterator[str]:
        changed = {name: value for name, value in fields.items() if name not in known or known[name] != value}
        if changed:
            self._api.patch(path, self._tried(changed), dry_run=self._dry_run)
            yield f"~ {what}: {_show(changed, known)}"

    def _delete(self, path: str) -> None:
        if not self._dry_run:
            self._api.delete(path)

    def _tried(self, fields: Document) -> dict[str, Any]:
        return {name: value for name, value in fields.items() if not self._dry_run or name not in _BY_OTHERS}


def _show(changed: Document, known: Document | None = None) -> str:
    told = ((name, json.dumps(value)) for name, value in changed.items())
    if known is None:
        return ", ".join(f"{name} {value}" for name, value in told)
    return ", ".join(f"{name} {json.dumps(known.get(name))} → {value}" for name, value in told)

"""The documents an org declares its state with: read, checked against their JSON Schema, and understood.

The schema is published as `contracts/desired_state/budget.v1.json`; editors check documents against the same file.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any
from uuid import UUID

from jsonschema import Draft202012Validator, ValidationError, validators

from ias.contracts.money import InvalidAmountError, format_usd, parse_usd
from ias.contracts.spending import AtLimit, Mode, ScopeKind, Window
from ias.kit.problems import FieldError, InvalidError

_DETAIL_LENGTH_MAX = 200


def _match_pattern(_: Any, pattern: str, instance: Any, __: Any) -> Iterator[ValidationError]:
    """JSON Schema's `$` is the end of the text; Python's also matches before a newline at the end."""
    if isinstance(instance, str) and not re.search(re.sub(r"\$$", r"\\Z", pattern), instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


_VALIDATOR = validators.extend(Draft202012Validator, {"pattern": _match_pattern})  # type: ignore[no-untyped-call]  # its stub has no types


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSpec:
    """What a budget is, apart from its identity."""

    scope_kind: ScopeKind
    scope_id: str
    window: Window
    limit_nano_usd: int
    mode: Mode
    at_limit: AtLimit = "block"

    @property
    def place(self) -> tuple[str, str, str]:
        """What cannot be changed of a budget: its scope and window."""
        return self.scope_kind, self.scope_id, self.window

    def render(self) -> dict[str, Any]:
        """As a document's `spec` and billing's API write it."""
        return {
            "scope": {"kind": self.scope_kind, "id": self.scope_id},
            "window": self.window,
            "limit_usd": format_usd(self.limit_nano_usd),
            "mode": self.mode,
            "at_limit": self.at_limit,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredBudget:
    """A budget as its document declares it."""

    name: str
    spec: BudgetSpec


def read_spec(spec: dict[str, Any]) -> BudgetSpec:
    """The budget that a document's `spec`, or billing's API, writes. Raises InvalidAmountError."""
    return BudgetSpec(
        scope_kind=spec["scope"]["kind"],
        scope_id=_in_one_spelling(spec["scope"]["kind"], spec["scope"]["id"]),
        window=spec["window"],
        limit_nano_usd=parse_usd(spec["limit_usd"]),
        mode=spec["mode"],
        at_limit=spec.get("at_limit", "block"),
    )


class Documents:
    """Reads documents of every kind there is a schema for; so far: budgets."""

    def __init__(self) -> None:
        schema = (files("ias.gitops") / "desired_state" / "budget.v1.json").read_text(encoding="utf-8")
        self._budget_schema = _VALIDATOR(json.loads(schema))

    def read(self, documents: list[dict[str, Any]], org_id: UUID) -> list[DesiredBudget]:
        """What the documents declare for an org.

        Raises:
            InvalidError: a document is not valid, or two of them contradict each other; `errors` names each place.
        """
        errors = [error for index, document in enumerate(documents) for error in self._check_form(index, document)]
        if not errors:
            desired = [
                DesiredBudget(name=document["metadata"]["name"], spec=read_spec(document["spec"]))
                for document in documents
            ]
            errors = [*_check_scopes(desired, org_id), *_check_distinct(desired)]
        if errors:
            raise InvalidError("One or more documents are not valid.", code="invalid_document", errors=errors[:50])
        return desired

    def _check_form(self, index: int, document: dict[str, Any]) -> Iterator[FieldError]:
        found = sorted(self._budget_schema.iter_errors(document), key=lambda error: [str(p) for p in error.path])
        for error in found:
            pointer = "".join(f"/{part}" for part in ("documents", index, *error.path))
            yield FieldError(pointer=pointer, detail=_encodable(error.message[:_DETAIL_LENGTH_MAX]))
        if not found:
            try:
                parse_usd(document["spec"]["limit_usd"])
            except InvalidAmountError as error:
                yield FieldError(pointer=f"/documents/{index}/spec/limit_usd", detail=str(error))


def _encodable(text: str) -> str:
    """The message may quote the document, and JSON can hold halves of characters that UTF-8 cannot."""
    return text.encode(errors="replace").decode()


def _check_scopes(desired: list[DesiredBudget], org_id: UUID) -> Iterator[FieldError]:
    for index, budget in enumerate(desired):
        pointer = f"/documents/{index}/spec/scope/id"
        if budget.spec.scope_kind == "model":
            continue
        if not _is_uuid(budget.spec.scope_id):
            yield FieldError(pointer=pointer, detail="is not an id")
        elif budget.spec.scope_kind == "org" and budget.spec.scope_id != str(org_id):
            yield FieldError(pointer=pointer, detail="is not the org the plan is for")


def _check_distinct(desired: list[DesiredBudget]) -> Iterator[FieldError]:
    names: set[str] = set()
    places: dict[tuple[str, ...], str] = {}
    for index, budget in enumerate(desired):
        if budget.name in names:
            yield FieldError(pointer=f"/documents/{index}/metadata/name", detail=f"{budget.name} is there twice")
        names.add(budget.name)
        first = places.setdefault((*budget.spec.place, budget.spec.mode), budget.name)
        if first != budget.name:
            detail = f"declares the same scope, window and mode as {first}"
            yield FieldError(pointer=f"/documents/{index}/spec", detail=detail)


def _in_one_spelling(scope_kind: str, scope_id: str) -> str:
    """Ids in the spelling billing answers with; a model's name is its own."""
    return str(UUID(scope_id)) if scope_kind != "model" and _is_uuid(scope_id) else scope_id


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True

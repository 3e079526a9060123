"""What a document may say."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from jsonschema import Draft202012Validator

from ias.contracts.permissions import ROLE_PERMISSIONS, Permission
from ias.gitops.core.documents import Documents, read_spec
from ias.kit.problems import InvalidError

ORG = uuid4()
PUBLISHED = Path(__file__).parents[2] / "contracts" / "desired_state"


def document(name: str = "monthly", **spec: Any) -> dict[str, Any]:
    whole = {"scope": {"kind": "org", "id": str(ORG)}, "window": "month", "limit_usd": "10", "mode": "hard"} | spec
    return {"apiVersion": "ias/v1", "kind": "Budget", "metadata": {"name": name}, "spec": whole}


def refuse(*documents: Any) -> set[str]:
    with pytest.raises(InvalidError) as refused:
        Documents().read(list(documents), ORG)
    assert refused.value.code == "invalid_document"
    refused.value.render("/").model_dump_json()
    return {error.pointer for error in refused.value.errors}


def test_the_published_schema_is_the_one_that_is_enforced() -> None:
    for enforced in (files("ias.gitops") / "desired_state").iterdir():
        assert (PUBLISHED / enforced.name).read_bytes() == enforced.read_bytes()
        Draft202012Validator.check_schema(json.loads(enforced.read_bytes()))


def test_a_document_is_understood() -> None:
    (budget,) = Documents().read([document(limit_usd="10.5")], ORG)
    assert budget.name == "monthly"
    assert budget.spec.limit_nano_usd == 10_500_000_000
    assert budget.spec.place == ("org", str(ORG), "month")
    assert read_spec(budget.spec.render()) == budget.spec


def test_ids_are_brought_to_one_spelling_and_model_names_are_not() -> None:
    project = uuid4()
    (by_id, by_name) = Documents().read(
        [
            document("a", scope={"kind": "project", "id": project.hex.upper()}),
            document("b", scope={"kind": "model", "id": "Org/Model"}),
        ],
        ORG,
    )
    assert UUID(by_id.spec.scope_id) == project
    assert by_id.spec.scope_id == str(project)
    assert by_name.spec.scope_id == "Org/Model"


@pytest.mark.parametrize(
    ("spec", "pointer"),
    [
        ({"window": "year"}, "/documents/0/spec/window"),
        ({"mode": "gentle"}, "/documents/0/spec/mode"),
        ({"limit_usd": 10}, "/documents/0/spec/limit_usd"),
        ({"limit_usd": "-1"}, "/documents/0/spec/limit_usd"),
        ({"limit_usd": "1e3"}, "/documents/0/spec/limit_usd"),
        ({"limit_usd": "10\n"}, "/documents/0/spec/limit_usd"),
        ({"limit_usd": "9999999999"}, "/documents/0/spec/limit_usd"),
        ({"limit_usd": "0.0000000001"}, "/documents/0/spec/limit_usd"),
        ({"scope": {"kind": "team", "id": "x"}}, "/documents/0/spec/scope/kind"),
        ({"scope": {"kind": "org"}}, "/documents/0/spec/scope"),
        ({"scope": {"kind": "org", "id": str(uuid4())}}, "/documents/0/spec/scope/id"),
        ({"scope": {"kind": "project", "id": "mine"}}, "/documents/0/spec/scope/id"),
        ({"scope": {"kind": "model", "id": ""}}, "/documents/0/spec/scope/id"),
        ({"scope": {"kind": "model", "id": "a\x00"}}, "/documents/0/spec/scope/id"),
        ({"scope": {"kind": "model", "id": "\ud800"}}, "/documents/0/spec/scope/id"),
        ({"\ud800": "half a character"}, "/documents/0/spec"),
        ({"password": "x"}, "/documents/0/spec"),
    ],
)
def test_what_is_wrong_is_named(spec: dict[str, Any], pointer: str) -> None:
    assert refuse(document(**spec)) == {pointer}


@pytest.mark.parametrize("name", ["", "Upper", "-a", "a-", "a b", "a" * 64, "a\n", 5, None])
def test_a_name_is_a_plain_label(name: Any) -> None:
    assert refuse(document() | {"metadata": {"name": name}}) == {"/documents/0/metadata/name"}


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"apiVersion": "ias/v2"}, "/documents/0/apiVersion"),
        ({"kind": "Cat"}, "/documents/0/kind"),
        ({"colour": "red"}, "/documents/0"),
        ({"metadata": {}}, "/documents/0/metadata"),
        ({"spec": None}, "/documents/0/spec"),
    ],
)
def test_the_envelope_is_checked(change: dict[str, Any], pointer: str) -> None:
    assert refuse(document() | change) == {pointer}


def test_every_wrong_document_is_named() -> None:
    assert refuse(document("a", mode="x"), document("b"), document("c", window="x")) == {
        "/documents/0/spec/mode",
        "/documents/2/spec/window",
    }


def test_documents_may_not_contradict_each_other() -> None:
    assert refuse(document("a"), document("a", window="day")) == {"/documents/1/metadata/name"}
    assert refuse(document("a"), document("b", limit_usd="11")) == {"/documents/1/spec"}
    assert len(Documents().read([document("a"), document("b", mode="soft")], ORG)) == 2


def test_whoever_declares_budgets_may_also_write_them() -> None:
    """Gitops acts in the caller's name, so a role with the one and without the other could plan and never apply."""

    for role, held in ROLE_PERMISSIONS.items():
        assert Permission.DESIRED_STATE_WRITE not in held or Permission.BUDGETS_WRITE in held, role

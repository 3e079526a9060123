"""Committed contracts are the ones the code keeps."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml
from contracts.generate import discover_services, discover_settings, find_differences, own_fields

from ias.contracts.events import TOPIC_GROUPS, AuditBatch, UsageBatch

ROOT = Path(__file__).parents[2]
EVENTS = ROOT / "contracts" / "events"
EVENT_TYPES: dict[str, type[UsageBatch | AuditBatch]] = {
    "usage_recorded.v1": UsageBatch,
    "audit_recorded.v1": AuditBatch,
}


def test_generated_files_are_up_to_date() -> None:
    assert find_differences() == [], "run `make contracts` and commit the result"


def test_services_are_found() -> None:
    written = [
        path.parent.name for path in (ROOT / "src" / "ias").glob("*/wiring.py") if "build_app" in path.read_text()
    ]
    assert sorted(written) == discover_services()


def test_every_setting_is_described() -> None:
    silent = [
        f"{settings.__name__}: {variable}"
        for settings in discover_settings()
        for variable, field in own_fields(settings).items()
        if not field.description
    ]
    assert silent == []


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_the_example_event_satisfies_its_schema_and_the_type(name: str) -> None:
    schema, example = read_event(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(json.loads(example))
    batch = msgspec.json.decode(example, type=EVENT_TYPES[name])
    assert batch.schema == name.replace(".v", "/")
    assert json.loads(msgspec.json.encode(batch)) == json.loads(example)


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_the_event_schema_has_the_fields_of_the_type_with_their_types(name: str) -> None:
    schema, _ = read_event(name)
    (record,) = schema["$defs"]
    described = schema["$defs"][record]
    derived = msgspec.json.schema(EVENT_TYPES[name])["$defs"][record]
    assert set(described["required"]) == set(derived["required"])
    assert described["properties"].keys() == derived["properties"].keys()
    for field_name, field in derived["properties"].items():
        assert accepted(described["properties"][field_name]) == accepted(field), field_name


def test_every_topic_stands_in_the_asyncapi_document_with_who_sends_and_who_listens() -> None:
    document = yaml.safe_load((EVENTS / "asyncapi.yaml").read_text())
    assert document["channels"].keys() == TOPIC_GROUPS.keys()
    listeners = [operation for operation in document["operations"].values() if operation["action"] == "receive"]
    assert len(listeners) == sum(map(len, TOPIC_GROUPS.values()))
    messages = document["components"]["messages"]
    assert messages.keys() == EVENT_TYPES.keys()
    for message in messages.values():
        assert (EVENTS / message["payload"]["schema"]["$ref"]).is_file()


def read_event(name: str) -> tuple[dict[str, Any], bytes]:
    """The schema of an event, and its example."""
    return json.loads((EVENTS / f"{name}.json").read_text()), (EVENTS / f"{name}.example.json").read_bytes()


def accepted(schema: dict[str, Any]) -> set[str]:
    """The JSON types, or the constants, that a schema lets through."""
    if "anyOf" in schema:
        return {kind for part in schema["anyOf"] for kind in accepted(part)}
    if "enum" in schema:
        return set(schema["enum"])
    kinds = schema["type"]
    return {kinds} if isinstance(kinds, str) else set(kinds)

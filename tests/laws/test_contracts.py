"""Committed contracts are the ones the code keeps."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import yaml
from contracts.generate import discover_services, discover_settings, find_differences, own_fields

from ias.contracts.events import TOPIC_GROUPS, USAGE_RECORDED, USAGE_TOPIC, UsageBatch, UsageRecord

ROOT = Path(__file__).parents[2]
EVENTS = ROOT / "contracts" / "events"
SCHEMA: dict[str, Any] = json.loads((EVENTS / "usage_recorded.v1.json").read_text())
EXAMPLE = (EVENTS / "usage_recorded.v1.example.json").read_bytes()


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


def test_the_example_event_satisfies_its_schema_and_the_type() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(EXAMPLE))
    batch = msgspec.json.decode(EXAMPLE, type=UsageBatch)
    assert batch.schema == USAGE_RECORDED
    assert json.loads(msgspec.json.encode(batch)) == json.loads(EXAMPLE)


def test_the_event_schema_has_the_fields_of_the_type_with_their_types() -> None:
    described = SCHEMA["$defs"]["UsageRecord"]
    derived = msgspec.json.schema(UsageRecord)["$defs"]["UsageRecord"]
    assert set(described["required"]) == set(derived["required"])
    assert described["properties"].keys() == derived["properties"].keys()
    for name, field in derived["properties"].items():
        assert accepted(described["properties"][name]) == accepted(field), name


def test_every_topic_stands_in_the_asyncapi_document_with_who_sends_and_who_listens() -> None:
    document = yaml.safe_load((EVENTS / "asyncapi.yaml").read_text())
    assert document["channels"].keys() == TOPIC_GROUPS.keys()
    listeners = [operation for operation in document["operations"].values() if operation["action"] == "receive"]
    assert len(listeners) == len(TOPIC_GROUPS[USAGE_TOPIC])
    payload = document["components"]["messages"]["usage_recorded.v1"]["payload"]["schema"]["$ref"]
    assert (EVENTS / payload).is_file()


def accepted(schema: dict[str, Any]) -> set[str]:
    """The JSON types, or the constants, that a schema lets through."""
    if "anyOf" in schema:
        return {kind for part in schema["anyOf"] for kind in accepted(part)}
    if "enum" in schema:
        return set(schema["enum"])
    kinds = schema["type"]
    return {kinds} if isinstance(kinds, str) else set(kinds)

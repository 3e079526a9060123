"""Every operation of every management API keeps the conventions of docs/management_api.md, by its OpenAPI document."""

from collections.abc import Iterator
from typing import Any

import pytest
from contracts.generate import build_app, discover_services
from fastapi import FastAPI, routing

from ias.kit.cursors import PAGE_SIZE_MAX
from ias.kit.routing import list_query_parameters

CHANGE_NOTHING = {
    "POST /registry/v1/adapters/{adapter_id}/verify",
    "POST /registry/v1/backends/{backend_id}/verify",
}
"""POSTs of callers that are no writes. A new one needs a reason in the code and a line here."""

IN_STEPS = {"POST /gitops/v1/plans/{plan_id}/apply", "POST /billing/v1/reconciliations"}
"""Writes that commit in steps, and so heed a dry run by themselves."""

Operation = tuple[str, dict[str, Any]]


def list_operations(document: dict[str, Any]) -> Iterator[Operation]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


def is_management(name: str) -> bool:
    return " /internal/" not in name


def is_write(name: str, operation: dict[str, Any]) -> bool:
    """Whether a caller changes something with it."""
    guarded = "security" in operation and is_management(name)
    return guarded and not name.startswith("GET ") and "x-ias-changes-nothing" not in operation


def parameters_of(operation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {parameter["name"].lower(): parameter for parameter in operation.get("parameters", [])}


def json_schema_of(operation: dict[str, Any], status: str) -> dict[str, Any]:
    schema: dict[str, Any] = (
        operation["responses"].get(status, {}).get("content", {}).get("application/json", {}).get("schema", {})
    )
    return schema


@pytest.fixture(scope="module", params=discover_services())
def app(request: pytest.FixtureRequest) -> FastAPI:
    return build_app(request.param)


@pytest.fixture(scope="module")
def document(app: FastAPI) -> dict[str, Any]:
    return app.openapi()


def test_every_route_refuses_query_parameters_but_those_that_the_document_names(
    app: FastAPI, document: dict[str, Any]
) -> None:
    taken = {}
    for context in routing.iter_route_contexts(app.routes):
        route = context.original_route
        if isinstance(route, routing.APIRoute) and route.include_in_schema:
            taken |= {f"{method} {context.path}": list_query_parameters(route) for method in context.methods or ()}
    named = {
        name: {one["name"] for one in operation.get("parameters", []) if one["in"] == "query"}
        for name, operation in list_operations(document)
    }
    assert taken == named


def test_every_write_takes_a_dry_run_and_says_what_it_answers(document: dict[str, Any]) -> None:
    for name, operation in list_operations(document):
        if is_write(name, operation):
            assert "dry_run" in parameters_of(operation), name
            assert "DryRunAnswer" in str(json_schema_of(operation, "200")), name


def test_every_post_takes_an_idempotency_key_and_every_other_write_if_match(document: dict[str, Any]) -> None:
    for name, operation in list_operations(document):
        if is_write(name, operation):
            wanted = "idempotency-key" if name.startswith("POST ") else "if-match"
            assert wanted in parameters_of(operation), name


def test_what_is_no_write_or_commits_in_steps_is_known() -> None:
    operations = [one for service in discover_services() for one in list_operations(build_app(service).openapi())]
    assert {name for name, operation in operations if "x-ias-changes-nothing" in operation} == CHANGE_NOTHING
    assert {name for name, operation in operations if "x-ias-in-steps" in operation} == IN_STEPS


def test_every_get_of_one_object_gives_a_tag_and_takes_it_back(document: dict[str, Any]) -> None:
    for name, operation in list_operations(document):
        schema = json_schema_of(operation, "200").get("$ref", "")
        if name.startswith("GET ") and schema and "/Page_" not in schema:
            assert "ETag" in operation["responses"]["200"]["headers"], name
            assert "if-none-match" in parameters_of(operation), name
            assert "304" in operation["responses"], name


def test_every_list_is_bounded_and_has_a_cursor(document: dict[str, Any]) -> None:
    for name, operation in list_operations(document):
        if "/Page_" in json_schema_of(operation, "200").get("$ref", ""):
            parameters = parameters_of(operation)
            assert parameters["limit"]["schema"]["maximum"] <= PAGE_SIZE_MAX, name
            assert "cursor" in parameters, name


def test_every_operation_documents_its_errors_as_problems(document: dict[str, Any]) -> None:
    for name, operation in list_operations(document):
        errors = {status: response for status, response in operation["responses"].items() if status >= "4"}
        assert {"422", "429", "503"} <= set(errors), name
        if "security" in operation:
            assert {"401", "403"} <= set(errors), name
        for status, response in errors.items():
            assert response == {"$ref": f"#/components/responses/Problem{status}"}, f"{name} {status}"
    for response in document["components"]["responses"].values():
        assert list(response["content"]) == ["application/problem+json"]


def test_every_field_of_every_answer_is_always_there(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name in reachable_from_answers(document):
        schema = schemas[name]
        assert set(schema.get("properties", {})) == set(schema.get("required", [])), name


def test_requests_take_no_fields_that_are_not_known(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name, operation in list_operations(document):
        if "requestBody" in operation:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            for ref in references(schema, schemas):
                if schemas[ref].get("type") == "object":
                    assert schemas[ref].get("additionalProperties") is False, f"{name}: {ref}"


def reachable_from_answers(document: dict[str, Any]) -> set[str]:
    schemas = document["components"]["schemas"]
    found: set[str] = set()
    for _, operation in list_operations(document):
        for response in operation["responses"].values():
            found |= references(response.get("content", {}), schemas)
    return found


def references(schema: Any, schemas: dict[str, Any]) -> set[str]:
    """The names of the schemas that one refers to, through any number of others."""
    found: set[str] = set()
    waiting = [schema]
    while waiting:
        match waiting.pop():
            case {"$ref": str(ref)} if ref.startswith("#/components/schemas/"):
                name = ref.rpartition("/")[2]
                if name not in found:
                    found.add(name)
                    waiting.append(schemas[name])
            case dict() as inner:
                waiting.extend(inner.values())
            case list() as inner:
                waiting.extend(inner)
    return found

"""The OpenAPI document of a management API, completed with what every operation shares: errors, dry runs, tags."""

from typing import Any

from fastapi import FastAPI

from ias.kit.problems import Problem
from ias.kit.routing import REPLAYED_HEADER, WRITES, DryRunAnswer

_ERRORS = {
    400: "The request cannot be understood: JSON that does not parse, a cursor that was changed.",
    401: "No valid bearer token.",
    403: "The caller lacks the permission.",
    404: "There is no such resource, or the caller cannot see it; or a link is not valid (any more).",
    409: "The state of the resource forbids it, or a request with this Idempotency-Key is on its way.",
    412: "The resource is at another version than `If-Match` names.",
    413: "The body is over the limit.",
    414: "The query is over the limit.",
    422: "A field, parameter or header is not valid; `errors` names each.",
    429: "Too many requests, or tries; `Retry-After` says how many seconds to wait.",
    431: "The headers are over the limit.",
    500: "A fault of the service; the request id finds it in the log.",
    503: "Something the service needs is away; `Retry-After` says when to try again.",
}
_PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_ETAG = {"description": "For `If-Match` and `If-None-Match`.", "schema": {"type": "string"}}
_REPLAYED = {
    "description": "`true` when the answer is that of an earlier request with the same Idempotency-Key.",
    "schema": {"type": "string", "enum": ["true"]},
}
_METHODS = frozenset({"get", *(method.lower() for method in WRITES)})


def complete_document(app: FastAPI) -> None:
    """Let the app's document say what every operation shares. Made once, as FastAPI does."""
    describe = app.openapi

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = describe()
            _add_components(document)
            for path in document["paths"].values():
                for method, operation in path.items():
                    if method in _METHODS:
                        _complete(method, operation)
        return app.openapi_schema or {}

    app.openapi = complete  # type: ignore[method-assign]  # the way FastAPI documents for extending it


def _add_components(document: dict[str, Any]) -> None:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own, which nothing here answers with
        schemas.pop(name, None)
    for model in (Problem, DryRunAnswer):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}", mode="serialization")
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    components["responses"] = {
        f"Problem{status}": {"description": what, "content": _PROBLEM} for status, what in _ERRORS.items()
    }


def _complete(method: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    parameters = {parameter["name"].lower() for parameter in operation.get("parameters", [])}
    for status in _errors_of(method, operation):
        responses[str(status)] = {"$ref": f"#/components/responses/Problem{status}"}
    answered = [responses[status] for status in ("200", "201") if status in responses]
    if "dry_run" in parameters and (schema := _json(responses.get("200", {}))) is not None:
        dry_run = {"$ref": "#/components/schemas/DryRunAnswer"}
        if schema["schema"] != dry_run:
            schema["schema"] = {"anyOf": [schema["schema"], dry_run]}
    if "if-none-match" in parameters:
        responses["304"] = {"description": "The caller has it already.", "headers": {"ETag": _ETAG}}
    if parameters & {"if-none-match", "dry_run"}:
        for response in answered:
            if _json(response) is not None:
                response.setdefault("headers", {})["ETag"] = _ETAG
    if "idempotency-key" in parameters:
        for response in answered:
            response.setdefault("headers", {})[REPLAYED_HEADER] = _REPLAYED


def _json(response: dict[str, Any]) -> dict[str, Any] | None:
    found: dict[str, Any] | None = response.get("content", {}).get("application/json")
    return found


def _errors_of(method: str, operation: dict[str, Any]) -> list[int]:
    guarded = "security" in operation
    writes = method != "get"
    applies = {
        404: guarded or writes,
        409: writes,
        412: method in ("put", "patch", "delete"),
        413: "requestBody" in operation,
    }
    return [status for status in _ERRORS if applies.get(status, True)]

"""The gateway's OpenAPI document, made from its endpoints.

It says what the gateway itself looks at and answers. The rest of a request and of an answer is the engine's: it passes through
untouched, so the schemas are open (`additionalProperties`), as OpenAI's own for these endpoints are.
"""

from typing import Any

from ias import __version__
from ias.gateway.endpoints import (
    CHAT_COMPLETIONS,
    COMPLETIONS,
    EMBEDDINGS,
    HEALTH,
    MODEL,
    MODELS,
    READY,
    RESPONSES,
    Endpoint,
)
from ias.gateway.replay import IDEMPOTENCY_KEY_LENGTH_MAX

Document = dict[str, Any]

_REQUIRED_MEMBER = {CHAT_COMPLETIONS: "messages", COMPLETIONS: "prompt", EMBEDDINGS: "input", RESPONSES: "input"}
_SUMMARIES = {
    CHAT_COMPLETIONS: "Create a chat completion",
    COMPLETIONS: "Create a completion",
    EMBEDDINGS: "Create embeddings",
    RESPONSES: "Create a response",
    MODELS: "List the models the key may use",
    MODEL: "Retrieve a model; slashes in its name may be raw or encoded",
    HEALTH: "The process runs",
    READY: "Whether the process can serve, and which dependency is away",
}
_REFUSALS = {
    "400": "The request is malformed, or the engine refuses it",
    "401": "No key, or one that is not valid",
    "403": "The key may not do this",
    "404": "There is no such model, or the key may not use it",
    "409": "The first request with this Idempotency-Key is still being answered; try again",
    "413": "The body is over the limit",
    "422": "The Idempotency-Key was used with another request, or the engine refuses this one",
    "429": "A rate limit or a budget has no room for the request; `x-ias-denied-by` names it, `retry-after` says when to try again",
    "500": "Something went wrong on our side",
    "502": "The model's server failed",
    "503": "Something the service needs is away; `retry-after` says when to try again",
    "504": "The model's server did not answer in time",
}


_IDEMPOTENCY_KEY: Document = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Of a request that is not streamed: a repetition gets the stored answer and is charged once.",
    "schema": {"type": "string", "minLength": 1, "maxLength": IDEMPOTENCY_KEY_LENGTH_MAX},
}


def describe() -> Document:
    """The document (OpenAPI 3.1)."""
    inference = {endpoint.path: {"post": _inference(endpoint)} for endpoint in _REQUIRED_MEMBER}
    reading = {endpoint.path: {"get": _reading(endpoint)} for endpoint in (MODELS, MODEL)}
    operating = {endpoint.path: {"get": _operating(endpoint)} for endpoint in (HEALTH, READY)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "IAS gateway",
            "version": __version__,
            "description": "OpenAI's inference API. OpenAI's SDKs work unchanged: set `base_url` and the key.",
        },
        "paths": inference | reading | operating,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, `ias-sk-…`."},
                "api_key": {"type": "apiKey", "in": "header", "name": "api-key"},
            },
            "schemas": {"Error": _error_schema()},
        },
    }


def _inference(endpoint: Endpoint) -> Document:
    member = _REQUIRED_MEMBER[endpoint]
    schema: Document = {
        "type": "object",
        "required": ["model", member],
        "properties": {"model": {"type": "string", "minLength": 1}, member: {}},
        "additionalProperties": True,
    }
    content: Document = {"application/json": {"schema": {"type": "object"}}}
    if endpoint.output_limit is not None:
        schema["properties"] |= {
            "stream": {"type": ["boolean", "null"]},
            endpoint.output_limit: {"type": ["integer", "null"]},
        }
        content["text/event-stream"] = {"schema": {"type": "string"}}
    return {
        "operationId": endpoint.name,
        "summary": _SUMMARIES[endpoint],
        "security": [{"bearer": []}, {"api_key": []}],
        "parameters": [_IDEMPOTENCY_KEY],
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {"200": {"description": "The engine's answer", "content": content}} | _errors(_REFUSALS),
    }


def _reading(endpoint: Endpoint) -> Document:
    operation: Document = {
        "operationId": "list_models" if endpoint is MODELS else "get_model",
        "summary": _SUMMARIES[endpoint],
        "security": [{"bearer": []}, {"api_key": []}],
        "responses": {"200": _json_answer("Models")}
        | _errors({status: _REFUSALS[status] for status in ("401", "403", "404", "500", "503")}),
    }
    if endpoint is MODEL:
        operation["parameters"] = [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]
    return operation


def _operating(endpoint: Endpoint) -> Document:
    answers: Document = {"200": _json_answer("Yes")}
    if endpoint is READY:
        answers["503"] = _json_answer("No; `checks` names what is away")
    return {"operationId": endpoint.name, "summary": _SUMMARIES[endpoint], "responses": answers}


def _json_answer(description: str) -> Document:
    return {"description": description, "content": {"application/json": {"schema": {"type": "object"}}}}


def _errors(refusals: dict[str, str]) -> Document:
    schema = {"$ref": "#/components/schemas/Error"}
    return {
        status: {"description": description, "content": {"application/json": {"schema": schema}}}
        for status, description in refusals.items()
    }


def _error_schema() -> Document:
    return {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": {"type": "string"},
                    "type": {"type": "string"},
                    "param": {"type": ["string", "null"]},
                    "code": {"type": ["string", "null"]},
                },
            }
        },
    }

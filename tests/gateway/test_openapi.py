"""The gateway's OpenAPI document says what the gateway does."""

import json

import jsonschema
import pytest

from ias.gateway.endpoints import UNKNOWN, find_endpoint
from ias.gateway.errors import Refusal
from ias.gateway.openapi import describe
from tests.gateway.platform import Pushed, RunningGateway
from tests.gateway.raw_client import ask, chat

DOCUMENT = describe()
OPERATIONS = [(path, method) for path, item in DOCUMENT["paths"].items() for method in item]


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_described_operation_exists(path: str, method: str) -> None:
    endpoint = find_endpoint(path.replace("{id}", "m").encode())
    assert endpoint is not UNKNOWN
    assert method.upper() in endpoint.methods


@pytest.mark.parametrize(
    ("body", "key", "status"),
    [(chat(), "none", 401), ({"model": "m"}, None, 400), (chat(model="nope"), None, 404)],
)
async def test_errors_have_the_described_shape_and_a_described_status(
    gateway: RunningGateway, pushed: Pushed, body: object, key: str | None, status: int
) -> None:
    answer = await ask(gateway.port, body, key=key or pushed.key)
    responses = DOCUMENT["paths"]["/v1/chat/completions"]["post"]["responses"]
    assert answer.status == status
    assert str(status) in responses
    jsonschema.validate(json.loads(answer.body), DOCUMENT["components"]["schemas"]["Error"])


def test_a_refusal_renders_all_four_members() -> None:
    jsonschema.validate(json.loads(Refusal(500, "x").body()), DOCUMENT["components"]["schemas"]["Error"])

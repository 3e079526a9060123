"""The gateway's OpenAPI document says what the gateway does."""

import asyncio
import json
from typing import Any

import jsonschema
import pytest

from ias.contracts.api_keys import generate_key
from ias.gateway.endpoints import UNKNOWN, find_endpoint
from ias.gateway.errors import Refusal
from ias.gateway.openapi import describe
from tests.contracts.described_answers import send_to_everything
from tests.engine.conftest import StartEngine
from tests.gateway.platform import Pushed, RunningGateway, backends
from tests.gateway.raw_client import ask, chat

DOCUMENT = describe()
ERROR_MEMBERS = {"message", "type", "param", "code"}
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


WITH_A_KEY = [(path, method) for path, method in OPERATIONS if DOCUMENT["paths"][path][method].get("security")]


async def test_every_route_refuses_every_key_that_opens_nothing(gateway: RunningGateway, pushed: Pushed) -> None:
    now_revoked, over, stopped = [
        await pushed.api_key(generate_key(), **state)
        for state in ({"status": "revoked"}, {"expires_at": 1}, {"status": "suspended"})
    ]
    for org, project in (("stuck", "of-stuck"), ("gone", "of-gone")):
        await pushed.tenants(org=org, project=project, status={"stuck": "suspended", "gone": "deleted"}[org])
    of_stuck, of_gone = [
        await pushed.api_key(generate_key(), org_id=org, project_id=f"of-{org}") for org in ("stuck", "gone")
    ]
    refused = [
        *((key, 401) for key in (None, "sk-anything", generate_key(), now_revoked, over)),
        *((key, 403) for key in (stopped, of_stuck, of_gone)),
    ]
    assert len(WITH_A_KEY) >= 6
    for path, method in WITH_A_KEY:
        for key, status in refused:
            answer = await ask(gateway.port, chat(), path=path.replace("{id}", "m"), method=method.upper(), key=key)
            assert (answer.status, set(answer.error)) == (status, ERROR_MEMBERS), (path, key)


@pytest.mark.slow
async def test_whatever_is_sent_the_answer_is_a_described_one(
    gateway: RunningGateway, pushed: Pushed, start_engine: StartEngine
) -> None:
    await pushed.routes({"m": {"backends": backends(f"{await start_engine(model='m')}/v1")}})

    def prepare(case: Any, about_what_is: bool) -> None:
        if about_what_is and isinstance(case.body, dict):
            case.body["model"] = "m"

    await asyncio.to_thread(send_to_everything, DOCUMENT, gateway.base_url, lambda _: pushed.key, prepare)


def test_a_refusal_renders_all_four_members() -> None:
    jsonschema.validate(json.loads(Refusal(500, "x").body()), DOCUMENT["components"]["schemas"]["Error"])

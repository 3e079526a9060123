"""Every refusal has OpenAI's status, type and code, in its four-key shape."""

from collections.abc import Callable
from typing import Any, get_args

import pytest

from ias.contracts.api_keys import KeyScope, generate_key
from ias.gateway.endpoints import CHAT_COMPLETIONS, COMPLETIONS, EMBEDDINGS, MODEL, MODELS, RESPONSES
from tests.gateway.conftest import StartGateway
from tests.gateway.platform import Pushed, RunningGateway, backends
from tests.gateway.raw_client import ask, chat, connect, request_bytes
from tests.gateway.scripted_upstream import Received, ScriptedUpstream, Session


async def test_78_no_key_is_401_without_a_code(gateway: RunningGateway) -> None:
    answer = await ask(gateway.port, chat())
    assert answer.status == 401
    assert (answer.error["type"], answer.error["code"]) == ("invalid_request_error", None)
    assert answer.headers["x-request-id"].startswith("req_")
    assert "openai-processing-ms" in answer.headers


WRONG_KEYS: list[Callable[[], str]] = [lambda: "nonsense", generate_key, lambda: "ias-sk-" + "a" * 49]


@pytest.mark.parametrize("make_key", WRONG_KEYS, ids=["form", "unknown", "checksum"])
async def test_78_79_a_wrong_key_is_401_and_masked(gateway: RunningGateway, make_key: Callable[[], str]) -> None:
    key = make_key()
    answer = await ask(gateway.port, chat(), key=key)
    assert answer.status == 401
    assert answer.error["code"] == "invalid_api_key"
    assert key not in answer.error["message"]


@pytest.mark.parametrize(
    "authorization", ["bearer {key}", "BEARER {key}", "Bearer  {key}", "Bearer {key} ", "Basic {basic}"]
)
async def test_75_76_a_key_is_read_however_it_is_spelled(gateway: RunningGateway, authorization: str) -> None:
    import base64  # noqa: PLC0415

    basic = base64.b64encode(f"user:{gateway.pushed.key}".encode()).decode()
    header = authorization.format(key=gateway.pushed.key, basic=basic)
    answer = await ask(gateway.port, chat(), headers={"authorization": header})
    assert answer.status == 200


@pytest.mark.parametrize("header", ["api-key", "x-api-key"])
async def test_77_other_headers_may_carry_the_key(gateway: RunningGateway, header: str) -> None:
    assert (await ask(gateway.port, chat(), headers={header: gateway.pushed.key})).status == 200


async def test_authentication_comes_before_the_body(gateway: RunningGateway) -> None:
    assert (await ask(gateway.port, b"not json")).status == 401


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"status": "revoked"}, 401, "invalid_api_key"),
        ({"expires_at": 1}, 401, "invalid_api_key"),
        ({"status": "suspended"}, 403, "account_suspended"),
        ({"scopes": ("embeddings",)}, 403, "insufficient_permissions"),
        ({"ip_networks": ("10.0.0.0/8",)}, 403, "ip_not_authorized"),
        ({"models": ("other",)}, 403, "model_not_found"),
        ({"models": ("m",), "scopes": ("chat_completions",), "ip_networks": ("127.0.0.0/8",)}, 200, None),
    ],
)
async def test_a_key_may_do_what_its_record_says(
    gateway: RunningGateway, changes: dict[str, Any], status: int, code: str | None
) -> None:
    await gateway.pushed.api_key(**changes)
    answer = await ask(gateway.port, chat(), key=gateway.pushed.key)
    assert answer.status == status
    if code is not None:
        assert answer.error["code"] == code


def test_the_scopes_that_keys_can_have_are_the_endpoints_that_there_are() -> None:
    endpoints = [CHAT_COMPLETIONS, COMPLETIONS, EMBEDDINGS, RESPONSES, MODELS, MODEL]
    assert {endpoint.name for endpoint in endpoints} == set(get_args(KeyScope))


async def test_a_suspended_org_is_refused(gateway: RunningGateway) -> None:
    await gateway.pushed.tenants(status="suspended")
    answer = await ask(gateway.port, chat(), key=gateway.pushed.key)
    assert (answer.status, answer.error["code"]) == (403, "account_suspended")


@pytest.mark.parametrize(
    ("header", "code"), [("Organization", "mismatched_organization"), ("Project", "mismatched_project")]
)
async def test_81_another_tenants_header_is_a_mismatch(gateway: RunningGateway, header: str, code: str) -> None:
    answer = await ask(gateway.port, chat(), key=gateway.pushed.key, headers={f"OpenAI-{header}": "other"})
    assert (answer.status, answer.error["code"]) == (401, code)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", None, None),
        (b"{", None, None),
        (b"[]", None, None),
        (b"null", None, None),
        (b'"x"', None, None),
        (b"\xef\xbb\xbf{}", None, None),
        (b'{"a":NaN}', None, None),
        (b'{"model":"m"} x', None, None),
        (b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}', None, None),
        (b'{"model":"m","messages":[{}],"model":"n"}', "duplicate_parameter", "model"),
        (b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}", None, None),
        ({"messages": []}, None, None),
        ({"model": ""}, None, None),
        ({"model": "m"}, "missing_required_parameter", "messages"),
        ({"model": "m", "messages": []}, "empty_array", "messages"),
        ({"model": "m", "messages": "x"}, "invalid_type", "messages"),
        ({"model": "m", "messages": ["x"]}, "invalid_type", "messages[0]"),
        (chat(n="2"), "invalid_type", "n"),
        (chat(n=0), "integer_below_min_value", "n"),
        (chat(n=1000), "integer_above_max_value", "n"),
        (chat(max_tokens=0), "integer_below_min_value", "max_tokens"),
        (chat(max_tokens=1.5), "invalid_type", "max_tokens"),
        (chat(stream="yes"), "invalid_type", "stream"),
        (chat(stream_options={"include_usage": True}), None, "stream_options"),
        (chat(metadata={str(i): "x" for i in range(17)}), "object_above_max_properties", "metadata"),
        (b'{"model":"m","messages":[{}],"n":1e999}', None, "n"),
    ],
)
async def test_68_69_70_a_body_that_cannot_be_served_is_400(
    gateway: RunningGateway, upstream: ScriptedUpstream, body: Any, code: str | None, param: str | None
) -> None:
    answer = await ask(gateway.port, body, key=gateway.pushed.key)
    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"
    assert (answer.error["code"], answer.error["param"]) == (code, param)
    assert upstream.received == []


async def test_a_missing_model_is_named_first(gateway: RunningGateway) -> None:
    answer = await ask(gateway.port, {}, key=gateway.pushed.key)
    assert "model parameter" in answer.error["message"]


async def test_83_an_unknown_model_is_404(gateway: RunningGateway) -> None:
    answer = await ask(gateway.port, chat(model="x"), key=gateway.pushed.key)
    assert (answer.status, answer.error["code"], answer.error["param"]) == (404, "model_not_found", None)
    assert answer.error["message"] == "The model `x` does not exist or you do not have access to it."


@pytest.mark.parametrize("path", ["/v1/v1/chat/completions", "//v1//chat/completions", "/v1/x", "/"])
async def test_65_an_unknown_url_is_404(gateway: RunningGateway, path: str) -> None:
    answer = await ask(gateway.port, chat(), key=gateway.pushed.key, path=path)
    assert answer.status == 404
    assert answer.error["message"] == f"Invalid URL (POST {path})"


async def test_66_a_wrong_method_is_405_and_says_which_are_right(gateway: RunningGateway) -> None:
    answer = await ask(gateway.port, key=gateway.pushed.key, method="GET")
    assert (answer.status, answer.error["code"]) == (405, "method_not_supported")
    assert "POST" in answer.headers["allow"]


async def test_61_a_body_over_the_limit_is_413_before_it_is_read(
    start_gateway: StartGateway, gateway: RunningGateway
) -> None:
    small = await start_gateway(gateway_body_bytes_max=1000)
    await small.until_ready()
    async with connect(small.port) as client:
        await client.send(request_bytes(key=small.pushed.key, headers={"content-length": "100000"}))
        answer = await client.read_answer()
        assert answer.status == 413
        assert answer.error["type"] == "invalid_request_error"
    async with connect(small.port) as client:
        await client.send(request_bytes(key=small.pushed.key, headers={"transfer-encoding": "chunked"}))
        for _ in range(3):
            await client.send(b"200\r\n" + b"x" * 0x200 + b"\r\n")
        assert (await client.read_answer()).status == 413


async def test_an_unpriced_model_is_refused_or_served_for_nothing(
    gateway: RunningGateway, start_gateway: StartGateway, pushed: Pushed
) -> None:
    await pushed.prices("other")
    lenient = await start_gateway(gateway_unpriced="allow")
    await lenient.until_ready()
    answer = await ask(gateway.port, chat(), key=pushed.key)
    assert (answer.status, answer.error["code"]) == (503, "model_unpriced")
    assert (await ask(lenient.port, chat(), key=pushed.key)).status == 200
    (record,) = await lenient.records(1)
    assert (record["price_id"], record["cost_nano_usd"]) == (None, 0)


async def test_without_counters_nothing_is_admitted(gateway: RunningGateway) -> None:
    await gateway.pushed.redis.delete("ias:counters:ready")
    answer = await ask(gateway.port, chat(), key=gateway.pushed.key)
    while answer.status == 200:  # the push is on its way
        answer = await ask(gateway.port, chat(), key=gateway.pushed.key)
    assert (answer.status, answer.error["code"]) == (503, "counters_not_ready")
    assert answer.headers["retry-after"] == "1"


async def test_a_model_without_usable_backends_is_503(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    table = gateway.worker.gateway.snapshots
    await gateway.pushed.routes({"m": {"backends": backends(upstream.url, draining=True)}, "new": {}})
    while table.routes is None or "new" not in table.routes.models:
        await ask(gateway.port, method="GET", path="/health")
    answer = await ask(gateway.port, chat(), key=gateway.pushed.key)
    assert (answer.status, answer.error["type"], answer.error["code"]) == (503, "server_error", "no_backend_available")


VLLM_CONTEXT = {
    "error": {
        "message": "This model's maximum context length is 8 tokens. However, your prompt contains 9 input tokens",
        "type": "BadRequestError",
        "param": "input_tokens",
        "code": 400,
    }
}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, VLLM_CONTEXT, (400, "invalid_request_error", "context_length_exceeded", "messages")),
        (400, {"error": {"message": "no", "type": "BadRequestError", "param": "n", "code": 400}},
         (400, "invalid_request_error", None, "n")),
        (400, {"detail": "bad"}, (400, "invalid_request_error", None, None)),
        (422, {"detail": [{"loc": ["body"]}]}, (422, "invalid_request_error", None, None)),
        (401, {"error": "Unauthorized"}, (502, "server_error", "upstream_refused_credentials", None)),
        (403, {"error": "Forbidden"}, (502, "server_error", "upstream_refused_credentials", None)),
        (404, {"error": {"message": "The model `m` does not exist.", "type": "NotFoundError", "code": 404}},
         (404, "invalid_request_error", "model_not_found", None)),
        (429, {"error": {"message": "slow", "type": "x", "code": 429}}, (429, "requests", "rate_limit_exceeded", None)),
        (500, {"error": {"message": "boom", "type": "InternalServerError", "code": 500}},
         (500, "server_error", None, None)),
        (502, b"<html>nginx at 10.0.0.1</html>", (502, "server_error", None, None)),
        (503, {"error": "scaling up"}, (503, "server_error", None, None)),
    ],
)  # fmt: skip
async def test_34_to_45_backends_errors_come_in_openais_shape(
    gateway: RunningGateway, upstream: ScriptedUpstream, status: int, body: Any, expected: tuple[Any, ...]
) -> None:
    async def script(_: Received, session: Session) -> None:
        await session.send_json(body, status)

    upstream.script = script
    for stream in (False, True):
        answer = await ask(gateway.port, chat(stream=stream), key=gateway.pushed.key)
        error = answer.error
        assert (answer.status, error["type"], error["code"], error["param"]) == expected
        assert "10.0.0.1" not in error["message"]
    assert gateway.publisher.records == []

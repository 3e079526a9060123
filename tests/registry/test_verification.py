"""Trying a backend out with one real completion."""

import json
from typing import Any

import httpx

from tests.registry.conftest import RunningRegistry, create_backend, create_model
from tests.registry.upstream import COMPLETION, Upstream, answering, http


async def verify(registry: httpx.AsyncClient, upstream: Upstream, *, name: str = "tiny", **more: Any) -> dict[str, Any]:
    model = await create_model(registry, name)
    backend = await create_backend(registry, model["id"], url=upstream.url, **more)
    answer = await registry.post(f"/registry/v1/backends/{backend['id']}/verify")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_completion_goes_through_the_backend_and_is_reported(registry: httpx.AsyncClient) -> None:
    async with answering(http(200, COMPLETION)) as upstream:
        report = await verify(registry, upstream, upstream_model="their/name", credential="sk-theirs")
    assert (report["ok"], report["status"]) == (True, 200)
    assert report["usage"] == {"input_tokens": 11, "cached_input_tokens": 4, "output_tokens": 3}
    assert report["latency_ms"] > 0
    (request,) = upstream.requests
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert b"authorization: bearer sk-theirs" in head.lower()
    assert json.loads(body)["model"] == "their/name"


FAILURES: list[tuple[bytes, int | None, str]] = [
    (http(401, {"error": {"code": "invalid_api_key", "message": "you sent sk-theirs"}}), 401, "(invalid_api_key)"),
    (http(500, b"oops sk-theirs"), 500, "answered 500"),
    (http(302, b"", "location: http://169.254.169.254/latest"), 302, "answered 302"),
    (http(200, {"choices": []}), 200, "not a chat completion"),
    (http(200, b"<html>"), 200, "not a chat completion"),
    (http(200, {"choices": [{}]}), 200, "without usage"),
    (http(200, {"choices": [{}], "usage": {"prompt_tokens": "1", "completion_tokens": 2}}), 200, "without usage"),
    (http(200, {"choices": [{}], "usage": {"prompt_tokens": 2**31, "completion_tokens": 2}}), 200, "without usage"),
    (http(200, b" " * 1_100_000), None, "no usable answer"),
    (b"HTTP/1.1 nonsense\r\n\r\n", None, "no usable answer"),
]


async def test_what_goes_wrong_is_reported_without_what_the_backend_wrote(registry: httpx.AsyncClient) -> None:
    for number, (answer, status, said) in enumerate(FAILURES):
        async with answering(answer) as upstream:
            report = await verify(registry, upstream, name=f"m{number}", credential="sk-theirs")
        assert (report["ok"], report["status"], report["usage"]) == (False, status, None), report
        assert said in report["detail"]
        assert "sk-theirs" not in report["detail"]
        assert len(upstream.requests) == 1, "a redirect is not followed, a failure is not retried"


async def test_a_backend_that_never_answers_ends_at_the_deadline(run_registry: RunningRegistry) -> None:
    async with run_registry(registry_verify_timeout_s=0.2) as registry, answering(b"") as upstream:
        report = await verify(registry, upstream)
    assert (report["ok"], report["status"]) == (False, None)


async def test_nobody_listening_is_reported(registry: httpx.AsyncClient) -> None:
    async with answering(b"") as upstream:
        pass
    report = await verify(registry, upstream)
    assert (report["ok"], report["detail"]) == (False, "There was no usable answer: ConnectError.")


async def test_a_backend_that_the_policy_no_longer_allows_is_not_called(run_registry: RunningRegistry) -> None:
    async with answering(http(200, COMPLETION)) as upstream:
        async with run_registry() as registry:
            model = await create_model(registry)
            backend = await create_backend(registry, model["id"], url=upstream.url)
        async with run_registry(registry_allow_loopback=False) as registry:
            report = (await registry.post(f"/registry/v1/backends/{backend['id']}/verify")).json()
        assert (report["ok"], report["status"], upstream.requests) == (False, None, [])

"""A request can be followed into the engine by its id."""

import io
import json

import httpx

from ias.engine.request_log import RequestLog
from ias.engine.server import build_app
from ias.engine.settings import EngineSettings


async def log_of(*calls: tuple[str, str, dict[str, object] | None]) -> list[dict[str, object]]:
    """What the engine writes for these calls: method, path and body of each."""
    stream = io.StringIO()
    app = RequestLog(build_app(EngineSettings(model="sim", tokens_per_second=0, ttft_ms=0)), stream)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://engine") as client:
        for method, path, body in calls:
            await client.request(method, path, json=body, headers={"x-request-id": "req_0123456789"})
    return [json.loads(line) for line in stream.getvalue().splitlines()]


async def test_a_request_is_one_line_with_the_id_it_came_with_and_nothing_it_said():
    chat = {"model": "sim", "messages": [{"role": "user", "content": "hunter2"}], "max_tokens": 3}
    lines = await log_of(
        ("POST", "/v1/chat/completions", chat), ("POST", "/v1/chat/completions", {**chat, "stream": True})
    )
    assert [line["request_id"] for line in lines] == ["req_0123456789"] * 2
    assert [(line["path"], line["status"], line["complete"]) for line in lines] == [
        ("/v1/chat/completions", 200, True)
    ] * 2
    assert "hunter2" not in json.dumps(lines)


async def test_refused_requests_are_lines_too():
    lines = await log_of(("POST", "/v1/chat/completions", {"model": "another"}), ("GET", "/nothing", None))
    assert [line["status"] for line in lines] == [400, 404]


async def test_probes_that_succeed_are_not_logged():
    assert await log_of(("GET", "/health", None), ("GET", "/metrics", None)) == []


async def test_a_line_says_what_was_served_as_the_answer_reported_it():
    chat = {
        "model": "sim",
        "messages": [{"role": "user", "content": "one two three"}],
        "max_tokens": 7,
        "ignore_eos": True,
    }
    lines = await log_of(
        ("POST", "/v1/chat/completions", chat),
        ("POST", "/v1/chat/completions", {**chat, "stream": True}),
        ("POST", "/v1/embeddings", {"model": "sim", "input": "one two"}),
    )
    whole, streamed, embedded = lines
    assert (whole["completion_tokens"], streamed["completion_tokens"], embedded["completion_tokens"]) == (7, 7, 0)
    assert whole["prompt_tokens"] == streamed["prompt_tokens"] > 0 < embedded["prompt_tokens"]

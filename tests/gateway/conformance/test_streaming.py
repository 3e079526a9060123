"""Streams, as OpenAI's SDKs expect them. Numbers are those of the list in README.md."""

import asyncio
import json
from typing import Any

import pytest

from tests.gateway.platform import RunningGateway, backends, until
from tests.gateway.raw_client import Answer, ask, chat, connect, request_bytes
from tests.gateway.scripted_upstream import (
    USAGE,
    Received,
    Script,
    ScriptedUpstream,
    Session,
    answer_politely,
    chunk,
    completion,
    usage_chunk,
)


def sends(*parts: bytes, done: bool = True) -> Script:
    """A backend that streams these bytes, each as a chunk of its own."""

    async def script(_: Received, session: Session) -> None:
        await session.begin_stream()
        for part in parts:
            await session.chunk(part)
            await asyncio.sleep(0)
        await session.end_stream(done=done)

    return script


def data(document: Any) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


async def stream(gateway: RunningGateway, **more: Any) -> Answer:
    return await ask(gateway.port, chat(stream=True, **more), key=gateway.pushed.key)


async def test_01_headers_of_a_stream(gateway: RunningGateway) -> None:
    answer = await stream(gateway)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert "content-length" not in answer.headers
    assert "content-encoding" not in answer.headers


async def test_02_the_first_token_does_not_wait_for_the_second(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    seen = asyncio.Event()

    async def script(_: Received, session: Session) -> None:
        await session.begin_stream()
        await session.event(chunk("first"))
        await seen.wait()
        await session.event(chunk("second", finish="stop"))
        await session.end_stream()

    upstream.script = script
    async with connect(gateway.port) as client, asyncio.timeout(10):
        await client.send(request_bytes(chat(stream=True), key=gateway.pushed.key))
        await client.read_head()
        assert b"first" in await client.reader.readuntil(b"\n\n")
        seen.set()
        assert b"second" in await client.reader.readuntil(b"\n\n")


@pytest.mark.parametrize("line_end", [b"\r\n", b"\r"])
async def test_03_04_other_line_ends(gateway: RunningGateway, upstream: ScriptedUpstream, line_end: bytes) -> None:
    parts = [data(chunk("a")), data(chunk("b", finish="stop"))]
    upstream.script = sends(*(part.replace(b"\n", line_end) for part in parts))
    assert (await stream(gateway)).text == "ab"


async def test_05_events_in_one_segment_keep_their_order(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    upstream.script = sends(b"".join(data(chunk(str(i))) for i in range(5)), data(chunk(finish="stop")))
    assert (await stream(gateway)).text == "01234"


async def test_06_07_one_byte_per_chunk(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    event = b"data: " + json.dumps(chunk("é🙂漢"), ensure_ascii=False).encode() + b"\n\n"
    upstream.script = sends(*(event[i : i + 1] for i in range(len(event))), data(chunk(finish="stop")))
    answer = await stream(gateway)
    assert answer.body.startswith(event)
    assert answer.text == "é🙂漢"


async def test_08_unicode_line_separators_end_no_line(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    event = b"data: " + json.dumps(chunk("a\u2028b\u0085c"), ensure_ascii=False).encode() + b"\n\n"
    upstream.script = sends(event, data(chunk(finish="stop")))
    assert (await stream(gateway)).text == "a\u2028b\u0085c"


async def test_09_an_event_of_a_megabyte(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    upstream.script = sends(data(chunk("x" * 1_000_000)), data(chunk(finish="stop")))
    assert len((await stream(gateway)).text) == 1_000_000


async def test_10_data_without_a_space(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    upstream.script = sends(data(chunk("a")).replace(b"data: ", b"data:"), data(chunk(finish="stop")))
    assert (await stream(gateway)).text == "a"


async def test_11_data_over_several_lines(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    lines = json.dumps(chunk("a"), indent=1).encode().split(b"\n")
    upstream.script = sends(b"".join(b"data: " + line + b"\n" for line in lines) + b"\n", data(chunk(finish="stop")))
    answer = await stream(gateway)
    first = answer.body.decode().split("\n\n")[0]
    assert json.loads("\n".join(line.removeprefix("data: ") for line in first.split("\n"))) == chunk("a")


async def test_12_14_comments_ids_and_empty_events_are_dropped(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    upstream.script = sends(
        b": keep-alive\n\n",
        b"event: ping\n\n",
        b"data:\n\n",
        b"id: 1\nretry: 5\n" + data(chunk("a")),
        data(chunk(finish="stop")),
    )
    answer = await stream(gateway)
    assert answer.text == "a"
    for unwanted in (b"\n:", b"id:", b"retry:", b"ping", b"data:\n"):
        assert unwanted not in answer.body


async def test_15_done_is_last_and_the_connection_free_at_once(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    async def script(received: Received, session: Session) -> None:
        if not received.document.get("stream"):
            await session.send_json(completion())
            return
        await session.begin_stream()
        await session.event(chunk("a", finish="stop"))
        await session.chunk(b"data: [DONE]\n\n")
        await session.wait_closed_by_peer()  # a backend that lingers

    upstream.script = script
    async with connect(gateway.port) as client:
        for body in (chat(stream=True), chat()):
            await client.send(request_bytes(body, key=gateway.pushed.key))
            answer = await client.read_answer()
            assert answer.status == 200
            if body.get("stream"):
                assert answer.events[-1] == "[DONE]"


async def test_16_a_missing_done_is_added(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    upstream.script = sends(data(chunk("a")), data(chunk(finish="stop")), done=False)
    answer = await stream(gateway)
    assert answer.text == "a"
    (record,) = await gateway.records(1)
    assert record["outcome"] == "completed"


async def test_17_leaving_right_after_done_is_success(gateway: RunningGateway) -> None:
    async with connect(gateway.port) as client:
        await client.send(request_bytes(chat(stream=True), key=gateway.pushed.key))
        await client.reader.readuntil(b"[DONE]\n\n")
        client.abort()
    (record,) = await gateway.records(1)
    assert record["outcome"] == "completed"


async def test_18_usage_is_not_shown_unless_asked_for(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    upstream.script = sends(
        data({**chunk("a"), "usage": None}), data({**chunk(finish="stop"), "usage": None}), data({**usage_chunk()})
    )
    answer = await stream(gateway)
    assert b"usage" not in answer.body
    assert answer.text == "a"
    assert upstream.received[0].document["stream_options"] == {"include_usage": True}
    (record,) = await gateway.records(1)
    assert (record["output_tokens"], record["estimated"]) == (5, False)


@pytest.mark.parametrize("n", [1, 2])
async def test_19_20_usage_is_shown_once_when_asked_for(gateway: RunningGateway, n: int) -> None:
    answer = await stream(gateway, stream_options={"include_usage": True}, n=n)
    assert [c["usage"] for c in answer.chunks if c.get("usage")] == [USAGE]


async def test_19_continuous_usage_of_the_backend_becomes_null(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    await gateway.pushed.routes(
        {"m": {"backends": backends(upstream.url, continuous_usage=True, vllm_extensions=True)}}
    )
    routes = gateway.worker.gateway.snapshots
    await until(lambda: routes.routes is not None and routes.routes.version == 2)
    upstream.script = sends(
        data({**chunk("a"), "usage": USAGE}), data({**chunk(finish="stop"), "usage": USAGE}), data(usage_chunk())
    )
    answer = await stream(gateway, stream_options={"include_usage": True})
    assert [c["usage"] for c in answer.chunks] == [None, None, USAGE]
    assert upstream.received[0].document["stream_options"]["continuous_usage_stats"] is True
    assert len(upstream.received[0].document["cache_salt"]) == 32


async def test_22_the_model_has_the_name_the_client_asked_for(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    await gateway.pushed.routes({"m": {"backends": backends(upstream.url, upstream_model="meta/llama")}})
    routes = gateway.worker.gateway.snapshots
    await until(lambda: routes.routes is not None and routes.routes.version == 2)
    upstream.script = sends(
        data({**chunk("a"), "model": "meta/llama"}), data({**chunk(finish="stop"), "model": "meta/llama"})
    )
    answer = await stream(gateway)
    assert {c["model"] for c in answer.chunks} == {"m"}
    assert upstream.received[0].document["model"] == "meta/llama"

    async def whole(_: Received, session: Session) -> None:
        await session.send_json({**completion(), "model": "meta/llama"})

    upstream.script = whole
    assert (await ask(gateway.port, chat(), key=gateway.pushed.key)).document["model"] == "m"


async def test_21_22_what_opens_each_choice_and_names_the_answer_passes(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    opening = [{**chunk(), "choices": [{"index": i, "delta": {"role": "assistant", "content": ""}}]} for i in range(2)]
    rest = [chunk("a"), chunk("b", index=1), chunk(finish="stop"), chunk(finish="stop", index=1)]
    upstream.script = sends(*(data(event) for event in opening + rest))
    chunks = (await stream(gateway, n=2)).chunks
    first: dict[int, Any] = {}
    for choice in (choice for c in chunks for choice in c["choices"]):
        first.setdefault(choice["index"], choice["delta"])
    assert {index: delta["role"] for index, delta in first.items()} == {0: "assistant", 1: "assistant"}
    assert {(c["id"], c["created"], c["model"]) for c in chunks} == {("chatcmpl-1", 1, "m")}


async def test_13_the_gateway_says_nothing_of_its_own_while_a_backend_thinks(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    async def think(_: Received, session: Session) -> None:
        await session.begin_stream()
        await session.event(chunk("a"))
        await asyncio.sleep(0.5)
        await session.event(chunk(finish="stop"))
        await session.end_stream()

    upstream.script = think
    assert (await stream(gateway)).body == data(chunk("a")) + data(chunk(finish="stop")) + b"data: [DONE]\n\n"


async def use_vllm(gateway: RunningGateway, upstream: ScriptedUpstream, **more: Any) -> None:
    await gateway.pushed.routes({"m": {"backends": backends(upstream.url, vllm_extensions=True, **more)}})
    snapshots = gateway.worker.gateway.snapshots
    await until(lambda: snapshots.routes is not None and snapshots.routes.version == 2)


@pytest.mark.parametrize("sent", ["reasoning", "reasoning_content"])
@pytest.mark.parametrize("at_once", [False, True])
async def test_29_reasoning_has_both_its_names(
    gateway: RunningGateway, upstream: ScriptedUpstream, sent: str, at_once: bool
) -> None:
    await use_vllm(gateway, upstream)
    thought = 'he said "{hm}" \\ 🙂'
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", sent: thought},
        {sent: thought},
        {"content": '"reasoning": no'},
        {"content": "", sent: None, "tool_calls": [{"index": 0, "function": {"arguments": '{"reasoning":1}'}}]},
    ]
    events = [{**chunk(), "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    two = {**chunk(), "choices": [{"index": i, "delta": {sent: str(i)}} for i in range(2)]}
    finish = chunk(finish="stop")
    compact = [json.dumps(e, separators=(",", ":")).encode() for e in events]
    parts = [b"data: " + text + b"\n\n" for text in compact] + [data(two), data(finish)]
    upstream.script = sends(b"".join(parts)) if at_once else sends(*parts)
    answer = await stream(gateway)
    seen = [c["choices"][0]["delta"] for c in answer.chunks]
    for delta in seen[:2]:
        assert delta["reasoning"] == delta["reasoning_content"] == thought
    assert seen[2] == deltas[2]
    assert seen[3]["reasoning"] is seen[3]["reasoning_content"] is None
    assert seen[3]["tool_calls"] == deltas[3]["tool_calls"]
    assert [c["delta"] for c in answer.chunks[4]["choices"]] == [
        {"reasoning": str(i), "reasoning_content": str(i)} for i in range(2)
    ]
    assert answer.body.endswith(data(finish) + b"data: [DONE]\n\n")


async def test_29_reasoning_of_a_whole_answer_has_both_its_names(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    await use_vllm(gateway, upstream, upstream_model="n")
    message = {"role": "assistant", "reasoning": "hm", "content": "Hello"}

    async def whole(_: Received, session: Session) -> None:
        await session.send_json(completion(choices=[{"index": 0, "message": message}], model="n"))

    upstream.script = whole
    answer = await ask(gateway.port, chat(), key=gateway.pushed.key)
    assert answer.document == completion(
        choices=[{"index": 0, "message": {**message, "reasoning_content": "hm"}}], model="m"
    )


async def test_29_what_both_names_have_already_passes_byte_for_byte(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    await use_vllm(gateway, upstream)
    parts = [
        data({**chunk(), "choices": [{"index": 0, "delta": {"reasoning": "a", "reasoning_content": "b"}}]}),
        b'data: {"choices": "odd", "reasoning": 1}\n\n',
        b'data: {"choices": [ {"delta" : null}, 3 ], "reasoning": 1}\n\n',
        data(chunk(finish="stop")),
    ]
    upstream.script = sends(*parts)
    assert (await stream(gateway)).body == b"".join(parts) + b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b'{"include_obfuscation" : 1.50,"x":{}}', b'{"include_usage":true,"include_obfuscation" : 1.50,"x":{}}'),
        (b'{"x":1,"include_usage":false}', b'{"x":1,"include_usage":true}'),
        (b'{"include_usage":true , "x":1}', b'{"include_usage":true , "x":1}'),
        (b"{}", b'{"include_usage":true}'),
        (b"null", b'{"include_usage":true}'),
    ],
)
async def test_71_unknown_stream_options_reach_the_backend(
    gateway: RunningGateway, upstream: ScriptedUpstream, sent: bytes, expected: bytes
) -> None:
    body = b'{"model":"m","stream":true,"stream_options": %b,"messages":[{}]}'
    assert (await ask(gateway.port, body % sent, key=gateway.pushed.key)).status == 200
    assert upstream.received[0].body == body % expected


@pytest.mark.parametrize(
    "events",
    [
        [chunk("a", index=i) for i in (0, 2, 1)] + [chunk(finish="stop", index=i) for i in range(3)],
        [
            {**chunk(), "choices": [{"index": 0, "delta": {"tool_calls": [{"index": i, "id": f"c{i}", "type": "function",
             "function": {"name": "f", "arguments": '{"é":"\\"'}}]}}]} for i in (0, 1)
        ],
        [{**chunk("a"), "choices": [{"index": 0, "delta": {"content": "a"},
          "logprobs": {"content": [{"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []}]}}]}],
        [{**chunk(), "choices": [{"index": 0, "delta": {"refusal": "no"}, "finish_reason": "stop"}]}],
        [{**chunk(), "choices": [{"index": 0, "delta": {"audio": {"data": "AAAA"}}}]}],
        [{**chunk(), "choices": [{"index": 0, "delta": {"reasoning": "hm"}}]}],
        [chunk(finish="length")],
    ],
    ids=["n3", "tools", "logprobs", "refusal", "audio", "reasoning", "length"],
)  # fmt: skip
async def test_23_to_32_content_passes_byte_for_byte(
    gateway: RunningGateway, upstream: ScriptedUpstream, events: list[Any]
) -> None:
    parts = [data(event) for event in events]
    upstream.script = sends(*parts)
    assert (await stream(gateway)).body == b"".join(parts) + b"data: [DONE]\n\n"


async def test_33_an_answer_that_is_no_stream_is_an_error(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    async def script(_: Received, session: Session) -> None:
        await session.send_json(completion())

    upstream.script = script
    answer = await stream(gateway)
    assert (answer.status, answer.error["code"]) == (502, "upstream_malformed")


async def test_a_stream_with_a_content_length_is_relayed(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    body = data(chunk("a")) + data(chunk(finish="stop")) + b"data: [DONE]\n\n"

    async def script(_: Received, session: Session) -> None:
        await session.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        )

    upstream.script = script
    assert (await stream(gateway)).text == "a"


async def test_a_stream_that_ends_with_its_connection_is_relayed(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    async def script(_: Received, session: Session) -> None:
        await session.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        await session.send(data(chunk("a")) + data(chunk(finish="stop")))
        session.writer.close()

    upstream.script = script
    assert (await stream(gateway)).text == "a"


async def test_39_an_error_event_of_the_backend_has_openais_shape(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    upstream.script = sends(
        data(chunk("a")), data({"error": {"message": "boom", "type": "InternalServerError", "code": 500}})
    )
    answer = await stream(gateway)
    assert answer.chunks[-1] == {"error": {"message": "boom", "type": "server_error", "param": None, "code": None}}


async def test_named_events_of_responses_pass_and_are_billed(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    created = b'event: response.created\ndata: {"type":"response.created","sequence_number":0}\n\n'
    completed = (
        b'event: response.completed\ndata: {"type":"response.completed","response":{"usage":'
        b'{"input_tokens":3,"output_tokens":4,"input_tokens_details":{"cached_tokens":1}}}}\n\n'
    )
    upstream.script = sends(created, completed, done=False)
    answer = await ask(
        gateway.port, {"model": "m", "input": "Hi", "stream": True}, key=gateway.pushed.key, path="/v1/responses"
    )
    assert answer.body == created + completed
    (record,) = await gateway.records(1)
    assert (record["input_tokens"], record["cached_input_tokens"], record["output_tokens"]) == (3, 1, 4)


async def test_usage_comes_before_done_at_every_speed(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    upstream.script = answer_politely
    answers = await asyncio.gather(*(stream(gateway, stream_options={"include_usage": True}) for _ in range(30)))
    for answer in answers:
        assert answer.chunks[-1]["usage"] == USAGE
        assert answer.text == "Hello"

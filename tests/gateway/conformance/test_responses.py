"""`/v1/responses`: relayed to backends that offer it, accounted like everything else."""

import asyncio
import json
from typing import Any

import openai
import pytest

from tests.gateway.platform import RunningGateway, backends, budget, until
from tests.gateway.raw_client import Answer, ask, connect, request_bytes
from tests.gateway.scripted_upstream import Received, Script, ScriptedUpstream, Session

REQUEST = {"model": "m", "input": "Hi"}
USAGE = {
    "input_tokens": 30,
    "input_tokens_details": {"cached_tokens": 10},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 37,
}


def response(status: str = "completed", **more: Any) -> dict[str, Any]:
    text = {"type": "output_text", "text": "Hello", "annotations": []}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": status,
        "metadata": {"model": "m"},
        "model": "m",
        "output": [message] if status == "completed" else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": USAGE if status != "in_progress" else None,
        **more,
    }


def event(kind: str, number: int, **more: Any) -> bytes:
    """As vLLM writes it: the type is not the first member."""
    document = {**more, "sequence_number": number, "type": kind}
    return f"event: {kind}\ndata: {json.dumps(document)}\n\n".encode()


def delta(text: str, number: int) -> bytes:
    return event("response.output_text.delta", number, delta=text, item_id="msg_1", output_index=0, content_index=0)


CREATED = event("response.created", 0, response=response("in_progress"))
DELTAS = (delta("Hel", 1), delta("lo", 2))
COMPLETED = event("response.completed", 3, response=response())


def sends(*parts: bytes, then: str = "end") -> Script:
    """A backend that streams these, then ends its body, dies, or lets it stay open."""

    async def script(_: Received, session: Session) -> None:
        await session.begin_stream()
        for part in parts:
            await session.chunk(part)
        if then == "end":
            await session.end_stream(done=False)
        elif then == "die":
            session.abort()
        else:
            await session.wait_closed_by_peer()

    return script


async def stream(gateway: RunningGateway, **more: Any) -> Answer:
    body = {**REQUEST, "stream": True, **more}
    return await ask(gateway.port, body, key=gateway.pushed.key, path="/v1/responses")


def last_error(answer: Answer) -> dict[str, Any]:
    """The error event that a stream ends with; its members are there side by side and as an object."""
    name, data = answer.body.decode().split("\n\n")[-2].split("\n")
    assert name == "event: error"
    document: dict[str, Any] = json.loads(data.removeprefix("data: "))
    assert document["type"] == "error"
    assert set(document["error"]) == {"message", "type", "param", "code"}
    assert {n: document[n] for n in ("message", "param", "code")} == {
        n: document["error"][n] for n in ("message", "param", "code")
    }
    return document


async def test_a_whole_answer_is_relayed_and_billed_by_its_usage(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    async def script(received: Received, session: Session) -> None:
        assert received.path == "/v1/responses"
        assert received.document == REQUEST
        await session.send_json(response())

    upstream.script = script
    answer = await ask(gateway.port, REQUEST, key=gateway.pushed.key, path="/v1/responses")
    assert answer.body == json.dumps(response()).encode()
    (record,) = await gateway.records(1)
    assert (record["input_tokens"], record["cached_input_tokens"], record["output_tokens"]) == (30, 10, 7)
    assert (record["endpoint"], record["estimated"]) == ("/v1/responses", False)


async def test_a_stream_is_relayed_byte_for_byte_and_settled_by_its_last_event(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    upstream.script = sends(b": thinking\n\n", CREATED, *DELTAS, COMPLETED)
    await gateway.pushed.budgets(budget(10**12))
    answer = await stream(gateway)
    assert answer.body == b"".join((CREATED, *DELTAS, COMPLETED))
    assert "stream_options" not in upstream.received[0].document
    (record,) = await gateway.records(1)
    assert (record["input_tokens"], record["cached_input_tokens"], record["output_tokens"]) == (30, 10, 7)
    assert (record["outcome"], record["estimated"]) == ("completed", False)
    await gateway.until_nothing_is_held()
    assert await gateway.pushed.counter("b1") == (record["cost_nano_usd"], 0)


async def test_the_client_is_free_after_the_last_event_whatever_the_backend_still_does(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    upstream.script = sends(CREATED, *DELTAS, COMPLETED, then="stay")
    async with connect(gateway.port) as client:
        for count in (1, 2):
            await client.send(request_bytes({**REQUEST, "stream": True}, key=gateway.pushed.key, path="/v1/responses"))
            assert (await client.read_answer()).body.endswith(COMPLETED)
            assert (await gateway.records(count))[-1]["outcome"] == "completed"


@pytest.mark.parametrize("spaced", [True, False])
async def test_the_model_has_the_name_the_client_asked_for_in_every_event(
    gateway: RunningGateway, upstream: ScriptedUpstream, spaced: bool
) -> None:
    await gateway.pushed.routes({"m": {"backends": backends(upstream.url, upstream_model="secret-name")}})
    snapshots = gateway.worker.gateway.snapshots
    await until(lambda: snapshots.routes is not None and snapshots.routes.version == 2)
    named = {"model": "secret-name", "metadata": {"model": "secret-name", "mine": "yes"}}
    parts = [
        event("response.created", 0, response=response("in_progress", **named)),
        delta('"model":"secret-name"', 1),
        event("response.completed", 2, response=response(**named)),
    ]
    upstream.script = sends(*(parts if spaced else [part.replace(b": ", b":") for part in parts]))
    answer = await stream(gateway)
    created, said, completed = (
        json.loads(block.split(b"data:")[1]) for block in answer.body.replace(b"data: ", b"data:").split(b"\n\n")[:-1]
    )
    for document in (created, completed):
        assert document["response"]["model"] == "m"
        assert document["response"]["metadata"] == {"model": "secret-name", "mine": "yes"}  # the client's own words
    assert "secret-name" in said["delta"]


@pytest.mark.parametrize("then", ["end", "die"])
async def test_a_stream_without_its_last_event_is_an_error_event_and_no_silent_end(
    gateway: RunningGateway, upstream: ScriptedUpstream, then: str
) -> None:
    upstream.script = sends(CREATED, *DELTAS, then=then)
    answer = await stream(gateway)
    assert answer.body.startswith(b"".join((CREATED, *DELTAS)))
    document = last_error(answer)
    assert (document["code"], document["sequence_number"]) == ("upstream_failed", 3)
    assert b"[DONE]" not in answer.body
    (record,) = await gateway.records(1)
    assert (record["outcome"], record["output_tokens"], record["estimated"]) == ("failed", 2, True)
    await gateway.until_nothing_is_held()


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (event("error", 3, code="server_error", message="boom", param=None), "server_error"),
        (event("error", 3, code=500, message="boom"), None),
        (b'data: {"error":{"message":"boom","type":"InternalServerError","code":500}}\n\n', None),
    ],
)
async def test_a_backends_error_event_has_openais_shape_and_raises(
    gateway: RunningGateway, upstream: ScriptedUpstream, sent: bytes, code: str | None
) -> None:
    upstream.script = sends(CREATED, *DELTAS, sent)
    document = last_error(await stream(gateway))
    assert (document["message"], document["code"], document["sequence_number"]) == ("boom", code, 3)
    async with openai.AsyncOpenAI(base_url=f"{gateway.base_url}/v1", api_key=gateway.pushed.key, max_retries=0) as sdk:
        with pytest.raises(openai.APIError, match="boom"):
            async for _ in await sdk.responses.create(model="m", input="Hi", stream=True):
                pass


async def test_a_failed_response_passes_and_is_recorded_as_failed(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    failed = event("response.failed", 3, response=response("failed", error={"code": "server_error", "message": "x"}))
    upstream.script = sends(CREATED, *DELTAS, failed)
    assert (await stream(gateway)).body == b"".join((CREATED, *DELTAS, failed))
    (record,) = await gateway.records(1)
    assert (record["outcome"], record["output_tokens"], record["estimated"]) == ("failed", 7, False)


async def test_an_incomplete_response_is_a_proper_end(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    incomplete = event("response.incomplete", 3, response=response("incomplete"))
    upstream.script = sends(CREATED, *DELTAS, incomplete)
    assert (await stream(gateway)).body.endswith(incomplete)
    (record,) = await gateway.records(1)
    assert (record["outcome"], record["output_tokens"]) == ("completed", 7)


async def test_events_without_names_are_told_by_their_type(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    upstream.script = sends(*(part[part.index(b"data:") :] for part in (CREATED, *DELTAS)), then="die")
    await stream(gateway)
    (record,) = await gateway.records(1)
    assert record["output_tokens"] == 2


async def test_a_client_that_leaves_stops_the_backend_and_pays_for_what_it_saw(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    aborted = asyncio.Event()

    async def script(received: Received, session: Session) -> None:
        await sends(CREATED, *DELTAS, then="stay")(received, session)
        aborted.set()

    upstream.script = script
    await gateway.pushed.budgets(budget(10**12))
    async with connect(gateway.port) as client:
        await client.send(request_bytes({**REQUEST, "stream": True}, key=gateway.pushed.key, path="/v1/responses"))
        await client.reader.readuntil(DELTAS[-1])
        client.abort()
    async with asyncio.timeout(5):
        await aborted.wait()
    (record,) = await gateway.records(1)
    assert (record["outcome"], record["output_tokens"], record["estimated"]) == ("cancelled", 2, True)
    await gateway.until_nothing_is_held()
    assert await gateway.pushed.counter("b1") == (record["cost_nano_usd"], 0)


async def test_a_budget_lowers_the_output_limit_or_refuses(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    upstream.script = sends(CREATED, COMPLETED)
    await gateway.pushed.budgets(budget(3_000_000))
    await stream(gateway)
    assert 1 < upstream.received[0].document["max_output_tokens"] < 1500
    await gateway.pushed.budgets(budget(1))
    while (answer := await stream(gateway)).status == 200:
        pass  # until the budget has arrived
    assert (answer.status, answer.error["code"]) == (429, "insufficient_quota")
    await gateway.until_nothing_is_held()


async def test_a_backend_that_does_not_offer_it_is_said_so(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    async def script(_: Received, session: Session) -> None:
        await session.send_json({"detail": "Not Found"}, status=404)

    upstream.script = script
    for answer in (await stream(gateway), await stream(gateway, stream=False)):
        assert answer.status == 404
        assert answer.error["code"] == "unsupported_endpoint"
        assert "`m`" in answer.error["message"]
    await gateway.until_nothing_is_held()
    assert gateway.publisher.records == []


@pytest.mark.parametrize("body", [{"previous_response_id": "resp_0"}, {"background": True}])
async def test_what_one_replica_would_have_to_remember_is_refused(
    gateway: RunningGateway, upstream: ScriptedUpstream, body: dict[str, Any]
) -> None:
    answer = await stream(gateway, **body)
    assert (answer.status, answer.error["code"]) == (400, "unsupported_parameter")
    assert upstream.received == []


async def test_the_python_sdk_reads_responses(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    upstream.script = sends(CREATED, *DELTAS, COMPLETED)
    async with openai.AsyncOpenAI(base_url=f"{gateway.base_url}/v1", api_key=gateway.pushed.key) as sdk:
        events = [received async for received in await sdk.responses.create(model="m", input="Hi", stream=True)]
    assert [received.type for received in events][-1] == "response.completed"
    assert "".join(received.delta for received in events if received.type.endswith("text.delta")) == "Hello"
    assert events[-1].response.usage.output_tokens == 7

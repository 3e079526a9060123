"""One request all the way through, streamed and not: served, priced, settled, recorded."""

from ias.contracts import redis_keys
from tests.gateway.platform import RunningGateway, budget
from tests.gateway.raw_client import ask, chat
from tests.gateway.scripted_upstream import ScriptedUpstream


async def test_an_answer_is_relayed_settled_and_recorded(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    await gateway.pushed.budgets(budget(1_000_000_000))
    answer = await ask(gateway.port, chat(), key=gateway.pushed.key)
    assert answer.status == 200
    assert answer.document["choices"][0]["message"]["content"] == "Hello"
    assert answer.headers["x-request-id"].startswith("req_")
    assert upstream.received[0].path == "/v1/chat/completions"
    assert "authorization" not in upstream.received[0].headers
    (record,) = await gateway.records(1)
    assert (record["input_tokens"], record["output_tokens"], record["cost_nano_usd"]) == (10, 5, 20_000)
    assert record["outcome"] == "completed"
    await gateway.until_quiet()
    assert await gateway.pushed.counter("b1") == (20_000, 0)
    assert await gateway.pushed.redis.zcard(redis_keys.reservation_deadlines("org-1")) == 0


async def test_a_stream_is_relayed_settled_and_recorded(gateway: RunningGateway) -> None:
    await gateway.pushed.budgets(budget(1_000_000_000))
    answer = await ask(gateway.port, chat(stream=True), key=gateway.pushed.key)
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.text == "Hello"
    assert all("usage" not in chunk for chunk in answer.chunks)
    (record,) = await gateway.records(1)
    assert (record["input_tokens"], record["output_tokens"], record["streamed"]) == (10, 5, True)
    await gateway.until_quiet()
    assert await gateway.pushed.counter("b1") == (20_000, 0)

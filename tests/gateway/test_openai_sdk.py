"""The official Python SDK, unchanged, against a running gateway."""

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from tests.gateway.platform import RunningGateway, budget
from tests.gateway.scripted_upstream import USAGE, Received, ScriptedUpstream, Session, chunk, completion

MESSAGES: Any = [{"role": "user", "content": "Hi"}]


@pytest.fixture
async def sdk(gateway: RunningGateway) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{gateway.base_url}/v1", api_key=gateway.pushed.key) as client:
        yield client


async def test_chat_and_stream(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.chat.completions.create(model="m", messages=MESSAGES)
    assert answer.choices[0].message.content == "Hello"
    assert answer._request_id is not None
    assert answer._request_id.startswith("req_")
    stream = await sdk.chat.completions.create(
        model="m", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 15


async def test_82_92_models_with_slashes(sdk: openai.AsyncOpenAI, gateway: RunningGateway) -> None:
    await gateway.pushed.routes({"meta/llama": {}})
    while [model.id async for model in sdk.models.list()] != ["meta/llama"]:
        pass
    assert (await sdk.models.retrieve("meta/llama")).id == "meta/llama"
    with pytest.raises(openai.NotFoundError) as caught:
        await sdk.models.retrieve("absent")
    assert caught.value.code == "model_not_found"


async def test_91_embeddings_in_base64_survive(sdk: openai.AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    async def embed(received: Received, session: Session) -> None:
        assert received.path == "/v1/embeddings"
        assert received.document["encoding_format"] == "base64"
        data = [{"object": "embedding", "index": 0, "embedding": "AACAPwAAAEA="}]
        await session.send_json(
            {"object": "list", "model": "m", "data": data, "usage": {"prompt_tokens": 2, "total_tokens": 2}}
        )

    upstream.script = embed
    answer = await sdk.embeddings.create(model="m", input="Hi")
    assert answer.data[0].embedding == [1.0, 2.0]


async def test_completions(sdk: openai.AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    async def complete(received: Received, session: Session) -> None:
        assert received.path == "/v1/completions"
        choice = {"index": 0, "text": "Hello", "finish_reason": "stop", "logprobs": None}
        await session.send_json({**completion(), "object": "text_completion", "choices": [choice]})

    upstream.script = complete
    assert (await sdk.completions.create(model="m", prompt="Hi")).choices[0].text == "Hello"


async def test_78_86_errors_have_the_sdks_classes(sdk: openai.AsyncOpenAI, gateway: RunningGateway) -> None:
    with pytest.raises(openai.AuthenticationError) as wrong:
        await sdk.with_options(api_key="nonsense").chat.completions.create(model="m", messages=MESSAGES)
    assert wrong.value.code == "invalid_api_key"
    with pytest.raises(openai.NotFoundError):
        await sdk.chat.completions.create(model="x", messages=MESSAGES)
    with pytest.raises(openai.BadRequestError) as bad:
        await sdk.chat.completions.create(model="m", messages=[])
    assert bad.value.param == "messages"
    await gateway.pushed.budgets(budget(1))
    before = gateway.worker.gateway.metrics._refusals["insufficient_quota"]
    with pytest.raises(openai.RateLimitError) as poor:  # noqa: PT012
        while True:  # until the budget has arrived
            await sdk.chat.completions.create(model="m", messages=MESSAGES)
    assert (poor.value.code, poor.value.type) == ("insufficient_quota", "insufficient_quota")
    assert gateway.worker.gateway.metrics._refusals["insufficient_quota"] == before + 1  # no retry


async def test_39_a_backend_that_dies_in_mid_stream_raises(sdk: openai.AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    async def die(_: Received, session: Session) -> None:
        await session.begin_stream()
        await session.event(chunk("a"))
        session.abort()

    upstream.script = die
    with pytest.raises(openai.APIError):
        async for _ in await sdk.with_options(max_retries=0).chat.completions.create(
            model="m", messages=MESSAGES, stream=True
        ):
            pass


async def test_47_leaving_a_stream_early_stops_the_backend(
    sdk: openai.AsyncOpenAI, upstream: ScriptedUpstream, gateway: RunningGateway
) -> None:
    async def endless(_: Received, session: Session) -> None:
        await session.begin_stream()
        while True:
            await session.event({**chunk("a"), "usage": USAGE})

    upstream.script = endless
    stream = await sdk.chat.completions.create(model="m", messages=MESSAGES, stream=True)
    async for _ in stream:
        break
    await stream.close()
    (record,) = await gateway.records(1)
    assert (record["outcome"], record["output_tokens"]) == ("cancelled", 5)

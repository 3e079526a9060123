"""The replica over real HTTP, with the official SDK."""

import asyncio
import struct
from base64 import b64decode

import httpx
import openai
import pytest
from openai import AsyncOpenAI
from prometheus_client.parser import text_string_to_metric_families
from tests.engine.conftest import StartEngine

ASK = [{"role": "user", "content": "Say something about queues."}]


async def read_metric(url: str, name: str, **labels: str) -> float:
    async with httpx.AsyncClient() as http:
        text = (await http.get(f"{url}/metrics")).text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    raise KeyError(name)


async def wait_for_metric(url: str, name: str, value: float, **labels: str) -> None:
    async with asyncio.timeout(10):
        while await read_metric(url, name, **labels) != value:
            await asyncio.sleep(0.01)


async def test_the_same_question_gets_the_same_answer_streamed_or_not(client: AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(model="sim", messages=ASK)
    stream = await client.chat.completions.create(model="sim", messages=ASK, stream=True)
    text = ""
    async for chunk in stream:
        text += chunk.choices[0].delta.content or ""
    assert text == whole.choices[0].message.content
    assert whole.choices[0].finish_reason == "stop"


async def test_another_engine_seed_gives_another_answer(start_engine: StartEngine) -> None:
    answers = set()
    for seed in (1, 2):
        async with AsyncOpenAI(base_url=f"{await start_engine(seed=seed)}/v1", api_key="none") as client:
            answer = await client.chat.completions.create(model="sim", messages=ASK)
            answers.add(answer.choices[0].message.content)
    assert len(answers) == 2


async def test_usage_counts_exactly_the_tokens_of_a_stream(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="sim", messages=ASK, max_completion_tokens=9, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    *contents, last_content, usage = chunks
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len(contents) == 9  # the role, and eight tokens
    assert last_content.choices[0].finish_reason == "length"
    assert usage.choices == []
    assert usage.usage is not None
    assert (usage.usage.completion_tokens, usage.usage.total_tokens) == (9, usage.usage.prompt_tokens + 9)
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_continuous_usage_grows_with_every_chunk(client: AsyncOpenAI) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    stream = await client.chat.completions.create(
        model="sim", messages=ASK, max_tokens=5, stream=True, stream_options=options, extra_body={"ignore_eos": True}
    )
    counts = [chunk.usage.completion_tokens async for chunk in stream if chunk.usage]
    assert counts == [0, 1, 2, 3, 4, 5, 5]


async def test_n_answers_interleave_and_differ(client: AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(model="sim", messages=ASK, n=3, max_tokens=6)
    assert len({choice.message.content for choice in whole.choices}) == 3
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 18
    stream = await client.chat.completions.create(model="sim", messages=ASK, n=3, max_tokens=6, stream=True)
    texts = ["", "", ""]
    finished = []
    async for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            if choice.finish_reason:
                finished.append(choice.index)
    assert texts == [choice.message.content for choice in whole.choices]
    assert sorted(finished) == [0, 1, 2]


async def test_a_stop_sequence_is_absent_from_the_text(client: AsyncOpenAI) -> None:
    whole = (await client.chat.completions.create(model="sim", messages=ASK)).choices[0].message.content or ""
    stop = whole[10:16]
    answer = await client.chat.completions.create(model="sim", messages=ASK, stop=[stop])
    assert answer.choices[0].message.content == whole[: whole.index(stop)]
    assert answer.choices[0].finish_reason == "stop"


async def test_a_prompt_seen_before_is_reported_as_cached(client: AsyncOpenAI) -> None:
    long = [{"role": "user", "content": "the same beginning " * 30}]
    details = []
    for _ in range(2):
        usage = (await client.chat.completions.create(model="sim", messages=long, max_tokens=1)).usage
        assert usage is not None
        assert usage.prompt_tokens_details is not None
        details.append(usage.prompt_tokens_details.cached_tokens)
    assert details[0] == 0
    assert details[1] >= 80


async def test_text_completions_take_texts_and_token_ids(client: AsyncOpenAI) -> None:
    answer = await client.completions.create(model="sim", prompt=["one two", "three"], echo=True, n=2)
    beginnings = ["one two", "one two", "three", "three"]
    assert all(choice.text.startswith(beginning) for choice, beginning in zip(answer.choices, beginnings, strict=True))
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 4 * 16)
    ids = await client.completions.create(model="sim", prompt=[1, 2, 3, 4], max_tokens=2)
    assert ids.usage is not None
    assert ids.usage.prompt_tokens == 4
    streamed = await client.completions.create(model="sim", prompt="one two", stream=True, max_tokens=4)
    assert "".join([chunk.choices[0].text async for chunk in streamed]).strip()


async def test_embeddings_are_the_same_as_floats_and_as_base64(client: AsyncOpenAI) -> None:
    through_sdk = await client.embeddings.create(model="sim", input=["a text", "another"], dimensions=32)
    floats = await client.embeddings.create(model="sim", input="a text", dimensions=32, encoding_format="float")
    assert len(through_sdk.data) == 2
    assert len(floats.data[0].embedding) == 32
    assert through_sdk.data[0].embedding == pytest.approx(floats.data[0].embedding, abs=1e-6)
    base64 = await client.embeddings.with_raw_response.create(
        model="sim", input="a text", dimensions=32, encoding_format="base64"
    )
    packed = b64decode(base64.http_response.json()["data"][0]["embedding"])
    assert struct.unpack("<32f", packed) == pytest.approx(floats.data[0].embedding, abs=1e-6)


async def test_models_and_health(engine_url: str, client: AsyncOpenAI) -> None:
    models = [model async for model in client.models.list()]
    assert [model.id for model in models] == ["sim"]
    assert models[0].model_dump()["max_model_len"] == 8192
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"{engine_url}/health")).status_code == 200


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"model": "sim", "messages": []}, "messages", "empty"),
        ({"model": "sim"}, "messages", "messages"),
        ({"model": "sim", "messages": ASK, "n": 0}, "n", "n must be"),
        ({"model": "sim", "messages": ASK, "n": "two"}, "n", "int"),
        ({"model": "sim", "messages": ASK, "max_tokens": 0}, "max_tokens", "max_tokens"),
        ({"model": "sim", "messages": ASK, "temperature": 3}, "temperature", "temperature"),
        ({"model": "sim", "messages": ASK, "stream_options": {}}, "stream_options", "stream"),
        ({"model": "sim", "messages": [{"role": "user", "content": 5}]}, "messages", "content"),
        (
            {"model": "sim", "messages": ASK, "max_tokens": 9000},
            "input_tokens",
            "maximum context length is 8192 tokens",
        ),
    ],
)
async def test_a_bad_request_is_refused_in_the_shape_of_vllm(
    engine_url: str, body: dict[str, object], param: str, words: str
) -> None:
    async with httpx.AsyncClient() as http:
        answer = await http.post(f"{engine_url}/v1/chat/completions", json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("BadRequestError", param, 400)
    assert words in error["message"]


async def test_a_prompt_over_the_context_is_refused_in_the_words_of_vllm(client: AsyncOpenAI) -> None:
    long = [{"role": "user", "content": "word " * 9000}]
    with pytest.raises(openai.BadRequestError, match="However, your prompt contains"):
        await client.chat.completions.create(model="sim", messages=long)


async def test_another_model_is_not_found(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(model="other", messages=ASK)
    assert caught.value.response.json()["error"]["code"] == 404


async def test_malformed_json_and_unknown_paths_are_answered_as_vllm_does(engine_url: str) -> None:
    async with httpx.AsyncClient(base_url=engine_url) as http:
        headers = {"content-type": "application/json"}
        broken = await http.post("/v1/chat/completions", content=b'{"model": ', headers=headers)
        assert (broken.status_code, broken.json()["error"]["code"]) == (400, 400)
        assert (await http.get("/v1/nowhere")).json() == {"detail": "Not Found"}
        assert (await http.get("/v1/chat/completions")).status_code == 405


async def test_a_client_that_leaves_a_stream_aborts_it(start_engine: StartEngine) -> None:
    url = await start_engine(tokens_per_second=20)
    body = {"model": "sim", "messages": ASK, "stream": True, "ignore_eos": True}
    async with (
        httpx.AsyncClient(timeout=10) as http,
        http.stream("POST", f"{url}/v1/chat/completions", json=body) as up,
    ):
        await anext(up.aiter_lines())
        await wait_for_metric(url, "vllm:num_requests_running", 1)
    await wait_for_metric(url, "vllm:num_requests_running", 0)
    assert await read_metric(url, "vllm:request_success_total", finished_reason="abort") == 1
    assert await read_metric(url, "vllm:kv_cache_usage_perc") == 0


async def test_a_client_that_leaves_before_the_answer_aborts_it(start_engine: StartEngine) -> None:
    url = await start_engine(ttft_ms=60_000)
    async with httpx.AsyncClient() as http:
        request = asyncio.create_task(
            http.post(f"{url}/v1/chat/completions", json={"model": "sim", "messages": ASK}, timeout=60)
        )
        await wait_for_metric(url, "vllm:num_requests_running", 1)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
    await wait_for_metric(url, "vllm:num_requests_running", 0)
    assert await read_metric(url, "vllm:request_success_total", finished_reason="abort") == 1


async def test_metrics_agree_with_the_usage_that_was_reported(engine_url: str, client: AsyncOpenAI) -> None:
    usages = [
        (await client.chat.completions.create(model="sim", messages=ASK, max_tokens=limit)).usage for limit in (3, 500)
    ]
    prompt, completion = (
        sum(usage.prompt_tokens for usage in usages if usage),
        sum(usage.completion_tokens for usage in usages if usage),
    )
    assert await read_metric(engine_url, "vllm:prompt_tokens_total", model_name="sim") == prompt
    assert await read_metric(engine_url, "vllm:generation_tokens_total", model_name="sim") == completion
    assert await read_metric(engine_url, "vllm:request_success_total", finished_reason="length") == 1
    assert await read_metric(engine_url, "vllm:request_success_total", finished_reason="stop") == 1
    assert await read_metric(engine_url, "vllm:time_to_first_token_seconds_count") == 2
    assert await read_metric(engine_url, "vllm:num_requests_waiting") == 0

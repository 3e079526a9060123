"""What operators and routers see of a replica, over real HTTP."""

import asyncio
import re

import httpx
import pytest
from openai import AsyncOpenAI
from prometheus_client.parser import text_string_to_metric_families
from tests.engine.conftest import StartEngine
from tests.engine.test_server import ASK, read_metric, wait_for_metric

from ias.engine.settings import EngineSettings, build_replica

CHAT = {"model": "sim", "messages": ASK, "ignore_eos": True, "max_tokens": 40}
STREAM = {**CHAT, "stream": True, "max_tokens": 4000}
SHOWN_BY_VLLM = {
    *("num_requests_running", "num_requests_waiting", "num_requests_waiting_by_reason", "kv_cache_usage_perc"),
    *("prefix_cache_queries", "prefix_cache_hits", "num_preemptions", "prompt_tokens", "prompt_tokens_cached"),
    *("prompt_tokens_by_source", "generation_tokens", "request_success", "time_to_first_token_seconds"),
    *("inter_token_latency_seconds", "request_time_per_output_token_seconds", "e2e_request_latency_seconds"),
    *("request_queue_time_seconds", "request_prefill_time_seconds", "request_decode_time_seconds"),
    *("request_inference_time_seconds", "request_prompt_tokens", "request_generation_tokens"),
    *("request_params_max_tokens", "iteration_tokens_total", "cache_config_info", "engine_sleep_state"),
}
"""Without the prefix `vllm:`; read in vllm/v1/metrics/loggers.py."""


async def names_of(url: str) -> set[str]:
    async with httpx.AsyncClient() as http:
        text = (await http.get(f"{url}/metrics")).text
    names = {family.name.removeprefix("vllm:") for family in text_string_to_metric_families(text)}
    return {name for name in names if not name.endswith("_created")}


async def test_metrics_have_the_names_that_vllm_has_now(engine_url: str) -> None:
    assert await names_of(engine_url) == SHOWN_BY_VLLM
    assert await read_metric(engine_url, "vllm:cache_config_info", num_gpu_blocks="16384", block_size="16") == 1
    assert await read_metric(engine_url, "vllm:num_requests_waiting_by_reason", engine="0", reason="capacity") == 0


async def test_metrics_can_have_the_names_that_vllm_had_before(start_engine: StartEngine) -> None:
    renamed = {"gpu_cache_usage_perc", "gpu_prefix_cache_queries", "gpu_prefix_cache_hits"}
    old = await names_of(await start_engine(metric_names="old"))
    both = await names_of(await start_engine(metric_names="both"))
    assert both - SHOWN_BY_VLLM == old - SHOWN_BY_VLLM == {*renamed, "time_per_output_token_seconds"}
    assert "kv_cache_usage_perc" not in old


async def test_load_counts_answers_under_way(start_engine: StartEngine) -> None:
    url = await start_engine(ttft_ms=60_000)
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        assert (await http.get("/load")).json() == {"server_load": 0}
        asking = asyncio.create_task(http.post("/v1/chat/completions", json={**CHAT, "n": 3}))
        await wait_for_metric(url, "vllm:num_requests_running", 3)
        assert (await http.get("/load")).json() == {"server_load": 3}
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def test_waiting_requests_are_seen_until_they_have_a_place(start_engine: StartEngine) -> None:
    url = await start_engine(ttft_ms=60_000, max_num_seqs=1, waiting_max=1)
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        asking = [asyncio.create_task(http.post("/v1/chat/completions", json=CHAT))]
        await wait_for_metric(url, "vllm:num_requests_running", 1)
        asking.append(asyncio.create_task(http.post("/v1/chat/completions", json=CHAT)))
        await wait_for_metric(url, "vllm:num_requests_waiting_by_reason", 1, reason="capacity")
        refused = await http.post("/v1/chat/completions", json=CHAT)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, 503)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    await wait_for_metric(url, "vllm:num_requests_waiting", 0)
    await wait_for_metric(url, "vllm:num_requests_running", 0)


async def test_preempted_answers_have_the_text_they_would_have_had(start_engine: StartEngine) -> None:
    ample = await start_engine(context_length=1024)
    tight = await start_engine(context_length=1024, num_gpu_blocks=64)
    bodies = [{**CHAT, "messages": [{"role": "user", "content": f"Story {n}"}], "max_tokens": 200} for n in range(12)]
    texts = []
    for url in (ample, tight):
        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            answers = await asyncio.gather(*(http.post("/v1/chat/completions", json=body) for body in bodies))
        texts.append([answer.json()["choices"][0]["message"]["content"] for answer in answers])
    assert texts[0] == texts[1]
    assert await read_metric(ample, "vllm:num_preemptions_total") == 0
    assert await read_metric(tight, "vllm:num_preemptions_total") > 0
    assert await read_metric(tight, "vllm:kv_cache_usage_perc") == 0


async def test_a_conversation_finds_its_own_answers_in_the_cache(client: AsyncOpenAI) -> None:
    messages = [{"role": "user", "content": "Tell me of queues. " * 20}]
    for _ in range(2):
        answer = await client.chat.completions.create(
            model="sim", messages=messages, max_tokens=60, extra_body={"ignore_eos": True}
        )
        messages += [
            {"role": "assistant", "content": answer.choices[0].message.content or ""},
            {"role": "user", "content": "Go on."},
        ]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    missed = answer.usage.prompt_tokens - (answer.usage.prompt_tokens_details.cached_tokens or 0)
    assert missed < 32  # what came after the answer, and what was short of a block


async def test_nothing_is_cached_across_salts(client: AsyncOpenAI) -> None:
    async def ask(salt: str) -> int:
        answer = await client.chat.completions.create(
            model="sim",
            messages=[{"role": "user", "content": "the same beginning " * 30}],
            max_tokens=1,
            extra_body={"cache_salt": salt},
        )
        assert answer.usage is not None
        assert answer.usage.prompt_tokens_details is not None
        return answer.usage.prompt_tokens_details.cached_tokens or 0

    assert [await ask(salt) > 0 for salt in ("a", "b", "a", "b")] == [False, False, True, True]


async def test_sleep_gives_up_or_keeps_what_runs_and_wakes_with_an_empty_cache(start_engine: StartEngine) -> None:
    url = await start_engine(dev_mode=True, tokens_per_second=50)
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        asking = asyncio.create_task(http.post("/v1/chat/completions", json=STREAM))
        await wait_for_metric(url, "vllm:num_requests_running", 1)
        assert (await http.post("/sleep?level=2")).status_code == 200
        assert '"type":"InternalServerError"' in (await asking).text
        assert (await http.get("/is_sleeping")).json() == {"is_sleeping": True}
        assert (await http.get("/health")).status_code == 200
        assert await read_metric(url, "vllm:engine_sleep_state", sleep_state="discard_all") == 1
        waiting = asyncio.create_task(http.post("/v1/chat/completions", json=CHAT))
        await wait_for_metric(url, "vllm:num_requests_waiting_by_reason", 1, reason="deferred")
        await http.post("/wake_up")
        assert (await waiting).status_code == 200
        kept = asyncio.create_task(http.post("/v1/chat/completions", json=CHAT))
        await wait_for_metric(url, "vllm:num_requests_running", 1)
        await http.post("/sleep?mode=keep")
        await wait_for_metric(url, "vllm:num_requests_running", 0)
        await http.post("/wake_up")
        assert (await kept).json()["usage"]["completion_tokens"] == 40
        assert (await http.post("/sleep?level=3")).status_code == 400


async def test_an_adapter_is_a_model_with_a_parent_and_a_cache_of_its_own(start_engine: StartEngine) -> None:
    url = await start_engine(loras=("sim-poet",), dev_mode=True)
    async with httpx.AsyncClient(base_url=url) as http:
        models = (await http.get("/v1/models")).json()["data"]
        assert [(model["id"], model["parent"]) for model in models] == [("sim", None), ("sim-poet", "sim")]
        cached = []
        for model in ("sim", "sim-poet", "sim-poet"):
            body = {"model": model, "messages": [{"role": "user", "content": "a word " * 50}], "max_tokens": 1}
            answer = (await http.post("/v1/chat/completions", json=body)).json()
            assert answer["model"] == model
            cached.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"] > 0)
        assert cached == [False, False, True]
        loaded = await http.post("/v1/load_lora_adapter", json={"lora_name": "new", "lora_path": "/x"})
        again = await http.post("/v1/load_lora_adapter", json={"lora_name": "new", "lora_path": "/x"})
        assert (loaded.status_code, again.status_code) == (200, 400)
        assert (await http.post("/v1/chat/completions", json={**CHAT, "model": "new"})).status_code == 200
        await http.post("/v1/unload_lora_adapter", json={"lora_name": "new"})
        assert (await http.post("/v1/chat/completions", json={**CHAT, "model": "new"})).status_code == 404


async def test_what_changes_the_replica_is_closed_unless_asked_for(engine_url: str) -> None:
    async with httpx.AsyncClient(base_url=engine_url) as http:
        for path in ("/sleep", "/wake_up", "/v1/load_lora_adapter"):
            assert (await http.post(path, json={})).status_code == 404
        assert (await http.put("/admin/faults", json={})).status_code == 404


async def test_tokenize_counts_as_usage_does(engine_url: str, client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="sim", messages=ASK, max_tokens=1)
    async with httpx.AsyncClient(base_url=engine_url) as http:
        counted = (await http.post("/tokenize", json={"model": "sim", "messages": ASK})).json()
        text = (await http.post("/tokenize", json={"prompt": "one two", "return_token_strs": True})).json()
    assert answer.usage is not None
    assert counted["count"] == len(counted["tokens"]) == answer.usage.prompt_tokens
    assert (text["token_strs"], text["max_model_len"]) == (["one", " two"], 8192)


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ({"priority": 3}, "Got priority 3 but Priority scheduling is not enabled."),
        ({"min_tokens": 50}, "min_tokens must be less than or equal to max_tokens=40, got 50."),
        ({"cache_salt": ""}, "non-empty string"),
    ],
)
async def test_fields_of_vllm_are_refused_in_its_words(engine_url: str, field: dict[str, object], words: str) -> None:
    async with httpx.AsyncClient(base_url=engine_url) as http:
        answer = await http.post("/v1/chat/completions", json={**CHAT, **field})
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


async def test_priorities_are_taken_where_the_policy_knows_them(start_engine: StartEngine) -> None:
    async with httpx.AsyncClient(base_url=await start_engine(scheduling_policy="priority")) as http:
        assert (await http.post("/v1/chat/completions", json={**CHAT, "priority": -2})).status_code == 200


async def test_an_api_key_guards_v1_and_nothing_else(start_engine: StartEngine) -> None:
    async with httpx.AsyncClient(base_url=await start_engine(api_key="sesame")) as http:
        refused = await http.post("/v1/chat/completions", json=CHAT)
        assert (refused.status_code, refused.json()) == (401, {"error": "Unauthorized"})
        assert (await http.get("/v1/models", headers={"authorization": "Bearer sesame"})).status_code == 200
        assert (await http.get("/health")).status_code == 200
        assert (await http.get("/metrics")).status_code == 200


def test_a_context_that_the_cache_cannot_hold_is_refused_in_the_words_of_vllm() -> None:
    with pytest.raises(ValueError, match=re.escape("max seq len (8192) is larger than")):
        build_replica(EngineSettings(model="sim", num_gpu_blocks=10))


async def test_a_calibrated_replica_serves_sped_up(start_engine: StartEngine) -> None:
    async with httpx.AsyncClient(base_url=await start_engine(profile="llama-3.1-8b@h100", speed=100)) as http:
        answer = await http.post("/v1/chat/completions", json=CHAT)
        assert answer.json()["usage"]["completion_tokens"] == 40

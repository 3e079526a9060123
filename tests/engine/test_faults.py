"""Faults do what they say, to the share of requests that they say, the same for the same seed."""

import asyncio

import httpx
import pytest
from tests.engine.conftest import StartEngine
from tests.engine.test_server import ASK, read_metric, wait_for_metric

from ias.engine.faults import CutFault, ErrorFault, Faults, FaultSource, HangFault, StallFault, decode_faults

CHAT = {"model": "sim", "messages": ASK, "ignore_eos": True, "max_tokens": 30}
STREAM = {**CHAT, "stream": True}


async def collect(up: httpx.Response, lines: list[str]) -> None:
    async for line in up.aiter_lines():
        lines += [line] if line else []


def test_the_same_seed_hits_the_same_requests() -> None:
    faults = Faults(error=ErrorFault(rate=0.3), hang=HangFault(rate=0.2))
    sources = [FaultSource(7, faults), FaultSource(7, faults), FaultSource(8, faults)]
    first, same, other = ([source.draw() for _ in range(200)] for source in sources)
    assert first == same != other
    assert 30 < sum(fate.error_status is not None for fate in first) < 90


def test_faults_of_another_form_are_refused_and_the_text_says_where() -> None:
    with pytest.raises(ValueError, match=r"\$\.error\.rate"):
        decode_faults('{"error": {"rate": 2}}')
    with pytest.raises(ValueError, match="unknown field `eror`"):
        decode_faults('{"eror": {}}')


async def test_errors_have_the_status_that_was_asked_for(start_engine: StartEngine) -> None:
    async with httpx.AsyncClient(base_url=await start_engine(faults=Faults(error=ErrorFault(status=502)))) as http:
        answer = await http.post("/v1/chat/completions", json=CHAT)
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, 502)
        assert (await http.post("/v1/embeddings", json={"input": "x"})).status_code == 502
        assert (await http.get("/health")).status_code == 200


async def test_a_hanging_replica_sends_no_headers(start_engine: StartEngine) -> None:
    async with httpx.AsyncClient(base_url=await start_engine(faults=Faults(hang=HangFault())), timeout=0.3) as http:
        for body in (CHAT, STREAM):
            with pytest.raises(httpx.ReadTimeout):
                await http.post("/v1/chat/completions", json=body)


async def test_a_stalled_stream_stops_after_its_tokens_with_the_connection_open(start_engine: StartEngine) -> None:
    url = await start_engine(faults=Faults(stall=StallFault(after_tokens=4)))
    async with (
        httpx.AsyncClient(base_url=url, timeout=1) as http,
        http.stream("POST", "/v1/chat/completions", json=STREAM) as up,
    ):
        lines: list[str] = []
        with pytest.raises(httpx.ReadTimeout):
            await collect(up, lines)
    assert len(lines) == 5  # the role, and four tokens
    await wait_for_metric(url, "vllm:num_requests_running", 0)


async def test_a_cut_stream_ends_in_the_middle(start_engine: StartEngine) -> None:
    url = await start_engine(faults=Faults(cut=CutFault(after_tokens=4)))
    async with httpx.AsyncClient(base_url=url, timeout=10) as http:
        lines: list[str] = []
        async with http.stream("POST", "/v1/chat/completions", json=STREAM) as up:
            with pytest.raises(httpx.RemoteProtocolError):
                await collect(up, lines)
        assert len(lines) == 5
        with pytest.raises(httpx.RemoteProtocolError):
            await http.post("/v1/chat/completions", json=CHAT)
    await wait_for_metric(url, "vllm:num_requests_running", 0)
    assert await read_metric(url, "vllm:kv_cache_usage_perc") == 0


async def test_faults_are_set_read_and_taken_back_at_run_time(start_engine: StartEngine) -> None:
    async with httpx.AsyncClient(base_url=await start_engine(admin=True)) as http:
        assert (await http.put("/admin/faults", json={"error": {"status": 500}})).status_code == 200
        assert (await http.get("/admin/faults")).json()["error"] == {"status": 500, "rate": 1.0}
        assert (await http.post("/v1/chat/completions", json=CHAT)).status_code == 500
        refused = await http.put("/admin/faults", json={"slow": 0})
        assert (refused.status_code, refused.json()["error"]["type"]) == (400, "BadRequestError")
        assert (await http.delete("/admin/faults")).status_code == 204
        assert (await http.post("/v1/chat/completions", json=CHAT)).status_code == 200


async def test_stale_and_failing_metrics(start_engine: StartEngine) -> None:
    url = await start_engine(admin=True)
    async with httpx.AsyncClient(base_url=url) as http:
        await http.put("/admin/faults", json={"stale_metrics": True})
        await http.post("/v1/chat/completions", json=CHAT)
        assert await read_metric(url, "vllm:generation_tokens_total") == 0
        await http.put("/admin/faults", json={"failing_metrics": True})
        assert (await http.get("/metrics")).status_code == 500
        await http.delete("/admin/faults")
        assert await read_metric(url, "vllm:generation_tokens_total") == 30


async def test_flapping_health_is_bad_and_good_by_turns(start_engine: StartEngine) -> None:
    async with httpx.AsyncClient(base_url=await start_engine(faults=Faults(flap_health_s=0.1))) as http:
        seen = []
        async with asyncio.timeout(20):
            while {200, 503} - set(seen):
                seen.append((await http.get("/health")).status_code)
                await asyncio.sleep(0.02)


async def test_a_slow_replica_takes_a_multiple(start_engine: StartEngine) -> None:
    url = await start_engine(tokens_per_second=200, faults=Faults(slow=10))
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        await http.post("/v1/chat/completions", json={**CHAT, "max_tokens": 5})
    assert await read_metric(url, "vllm:inter_token_latency_seconds_sum") >= 4 * 0.05

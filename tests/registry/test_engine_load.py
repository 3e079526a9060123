"""What is read from an engine's metrics."""

import pytest

from ias.registry.core.engine_load import EngineLoad, read_engine_load

NOTHING = EngineLoad(running=None, waiting=None, kv_cache_usage=None, is_asleep=None)
LABELS = '{engine="0",model_name="m"}'


@pytest.mark.parametrize("name", ["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"])
def test_both_spellings_of_a_renamed_metric_are_read(name: str) -> None:
    text = f"vllm:num_requests_running{LABELS} 3.0\nvllm:num_requests_waiting{LABELS} 2.0\n{name}{LABELS} 0.25\n"
    assert read_engine_load(text) == EngineLoad(running=3, waiting=2, kv_cache_usage=0.25, is_asleep=None)


def test_a_metric_that_begins_alike_is_another_one() -> None:
    text = (
        "# HELP vllm:num_requests_waiting Number of requests.\n# TYPE vllm:num_requests_waiting gauge\n"
        f"vllm:num_requests_running_total{LABELS} 900\nvllm:num_requests_waiting_since{LABELS} 900\n"
        f"my_vllm:num_requests_running{LABELS} 900\nvllm:num_requests_running{LABELS} 1\n"
    )
    assert read_engine_load(text) == EngineLoad(running=1, waiting=None, kv_cache_usage=None, is_asleep=None)


def test_what_waits_for_room_is_what_counts_as_waiting() -> None:
    text = (
        f"vllm:num_requests_waiting{LABELS} 9.0\n"
        'vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 4.0\n'
        'vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="deferred"} 5.0\n'
    )
    assert read_engine_load(text).waiting == 4


def test_several_engines_behind_one_server_are_added_up() -> None:
    text = "".join(
        f'vllm:num_requests_running{{engine="{n}"}} {n + 1}\nvllm:kv_cache_usage_perc{{engine="{n}"}} 0.{n}\n'
        for n in range(3)
    )
    assert (read_engine_load(text).running, read_engine_load(text).kv_cache_usage) == (6, 0.2)


@pytest.mark.parametrize(("awake", "is_asleep"), [("1.0", False), ("0.0", True)])
def test_an_engine_says_whether_it_sleeps(awake: str, is_asleep: bool) -> None:
    text = (
        f'vllm:engine_sleep_state{{engine="0",sleep_state="awake"}} {awake}\n'
        'vllm:engine_sleep_state{engine="0",sleep_state="discard_all"} 1.0\n'
    )
    assert read_engine_load(text).is_asleep is is_asleep


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>",
        "vllm:num_requests_running",
        "vllm:num_requests_running NaN\nvllm:num_requests_waiting -1\nvllm:kv_cache_usage_perc +Inf\n",
        "vllm:num_requests_running{ x\nvllm:num_requests_waiting one\n",
    ],
)
def test_what_cannot_be_read_is_not_there(text: str) -> None:
    assert read_engine_load(text) == NOTHING

"""What an engine says of its load in its metrics: vLLM's names, matched exactly, in their old spellings too.

A name that merely begins alike is another metric: `vllm:num_requests_waiting_by_reason` holds some of `vllm:num_requests_waiting`
once more. Names are vLLM's (`vllm/v1/metrics/loggers.py`); `gpu_cache_usage_perc` was renamed in its 0.9.
"""

import re
from dataclasses import dataclass

from ias.registry.core.exposition import list_values

_RUNNING = "vllm:num_requests_running"
_WAITING = "vllm:num_requests_waiting"
_WAITING_BY_REASON = "vllm:num_requests_waiting_by_reason"
_KV_CACHE_USAGE = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
_SLEEP_STATE = "vllm:engine_sleep_state"
_CAPACITY = re.compile(r'(?:^|,)\s*reason="capacity"')
_AWAKE = re.compile(r'(?:^|,)\s*sleep_state="awake"')


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLoad:
    """What one scrape told. None: the engine does not say. Several engines behind one server are added up."""

    running: int | None
    waiting: int | None
    """Requests that wait for room; of those that wait for something else nobody's routing can help."""
    kv_cache_usage: float | None
    """0 to 1, of the fullest."""
    is_asleep: bool | None


def read_engine_load(metrics: str) -> EngineLoad:
    """The load in an exposition of Prometheus' text format; what cannot be read is not there."""
    waiting = list_values(metrics, _WAITING_BY_REASON, _CAPACITY) or list_values(metrics, _WAITING)
    usage = next((values for name in _KV_CACHE_USAGE if (values := list_values(metrics, name))), None)
    awake = list_values(metrics, _SLEEP_STATE, _AWAKE)
    return EngineLoad(
        running=_total(list_values(metrics, _RUNNING)),
        waiting=_total(waiting),
        kv_cache_usage=min(max(usage), 1.0) if usage else None,
        is_asleep=not any(awake) if awake else None,
    )


def _total(values: list[float]) -> int | None:
    return int(min(sum(values), 1e9)) if values else None

"""What an engine says of its load in its metrics: vLLM's names, matched exactly, in their old spellings too.

A name that merely begins alike is another metric: `vllm:num_requests_waiting_by_reason` holds some of `vllm:num_requests_waiting`
once more. Names are vLLM's (`vllm/v1/metrics/loggers.py`); `gpu_cache_usage_perc` was renamed in its 0.9.
"""

import math
import re
from dataclasses import dataclass

_RUNNING = "vllm:num_requests_running"
_WAITING = "vllm:num_requests_waiting"
_WAITING_BY_REASON = "vllm:num_requests_waiting_by_reason"
_KV_CACHE_USAGE = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
_SLEEP_STATE = "vllm:engine_sleep_state"
_WANTED = frozenset({_RUNNING, _WAITING, _WAITING_BY_REASON, *_KV_CACHE_USAGE, _SLEEP_STATE})

_SAMPLE = re.compile(r"^(vllm:[a-z_:]+)(?:\{([^\n]*)\})? +(\S+)(?: +-?\d+)?$", re.MULTILINE)
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
    found: dict[str, list[tuple[str, float]]] = {}
    for sample in _SAMPLE.finditer(metrics):
        name, labels, value = sample.groups()
        number = _number(value) if name in _WANTED else None
        if number is not None:
            found.setdefault(name, []).append((labels or "", number))
    capacity = [value for labels, value in found.get(_WAITING_BY_REASON, ()) if _CAPACITY.search(labels)]
    waiting = capacity or [value for _, value in found.get(_WAITING, ())]
    usage = next((found[name] for name in _KV_CACHE_USAGE if name in found), ())
    awake = [value for labels, value in found.get(_SLEEP_STATE, ()) if _AWAKE.search(labels)]
    return EngineLoad(
        running=_total([value for _, value in found.get(_RUNNING, ())]),
        waiting=_total(waiting),
        kv_cache_usage=min(max(value for _, value in usage), 1.0) if usage else None,
        is_asleep=not any(awake) if awake else None,
    )


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _total(values: list[float]) -> int | None:
    return int(min(sum(values), 1e9)) if values else None

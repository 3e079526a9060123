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
_REST_OF_SAMPLE = re.compile(r"(?:\{([^\n]*)\})? +(\S+)(?: +-?\d+)?\r?(?:\n|$)")
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
    waiting = _list_values(metrics, _WAITING_BY_REASON, _CAPACITY) or _list_values(metrics, _WAITING)
    usage = next((values for name in _KV_CACHE_USAGE if (values := _list_values(metrics, name))), None)
    awake = _list_values(metrics, _SLEEP_STATE, _AWAKE)
    return EngineLoad(
        running=_total(_list_values(metrics, _RUNNING)),
        waiting=_total(waiting),
        kv_cache_usage=min(max(usage), 1.0) if usage else None,
        is_asleep=not any(awake) if awake else None,
    )


def _list_values(metrics: str, name: str, labels: re.Pattern[str] | None = None) -> list[float]:
    """The values of a metric, of the series that have the labels. Searched for by name: there are a thousand other lines."""
    values = []
    at = metrics.find(name)
    while at >= 0:
        end = at + len(name)
        sample = _REST_OF_SAMPLE.match(metrics, end) if at == 0 or metrics[at - 1] == "\n" else None
        if sample and (labels is None or labels.search(sample[1] or "")):
            number = _number(sample[2])
            values += [] if number is None else [number]
        at = metrics.find(name, end)
    return values


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _total(values: list[float]) -> int | None:
    return int(min(sum(values), 1e9)) if values else None

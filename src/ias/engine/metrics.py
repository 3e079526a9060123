"""The replica's metrics, under the names vLLM gives them: a router cannot tell the two apart.

Names, labels and buckets are those of vllm/v1/metrics/loggers.py. Before vLLM 0.9 some had other names, and a router may still meet
such a replica: `MetricNames` says which are shown.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ias.engine.blocks import BLOCK_TOKENS
from ias.engine.replica import Replica

MetricNames = Literal["current", "both", "old"]
"""`current`: vLLM 0.10 and later; `both`: 0.9, which showed the renamed ones twice; `old`: before."""

FINISH_REASONS = ("stop", "length", "abort", "error", "repetition")
CAPACITY, DEFERRED = "capacity", "deferred"

_FIRST_TOKEN_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_PER_TOKEN_S = (
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.15,
    0.2,
    0.3,
    0.4,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
    20.0,
    40.0,
    80.0,
)
_REQUEST_S = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0),
    *(40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
_STEP_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)

_RENAMED = {
    "vllm:kv_cache_usage_perc": "vllm:gpu_cache_usage_perc",
    "vllm:prefix_cache_queries": "vllm:gpu_prefix_cache_queries",
    "vllm:prefix_cache_hits": "vllm:gpu_prefix_cache_hits",
    "vllm:inter_token_latency_seconds": "vllm:time_per_output_token_seconds",
}


@dataclass(slots=True)
class Timings:
    """When things happened to one answer, in the loop's seconds."""

    arrived_s: float = 0.0
    started_s: float | None = None
    """It first got a place in the batch."""
    first_token_s: float | None = None
    last_token_s: float = 0.0


class EngineMetrics:
    """All series of one replica, labelled with the model it serves."""

    def __init__(self, model: str, replica: Replica, *, context_length: int, names: MetricNames = "current") -> None:
        self.registry = CollectorRegistry()
        self._labels = {"model_name": model, "engine": "0"}
        self._names = names
        self._build_counters()
        self._build_histograms(context_length)
        self.registry.register(_ReplicaState(replica, self._labels, names))
        self._build_info(replica)

    def count_prompt(self, prompt_tokens: int, cached_tokens: int) -> None:
        """A sequence has joined the batch for the first time."""
        self._prompt_tokens.inc(prompt_tokens)
        self._prompt_tokens_cached.inc(cached_tokens)
        self._prompt_computed.inc(prompt_tokens - cached_tokens)
        self._prompt_found.inc(cached_tokens)

    def count_step(self, tokens: int, generated: int) -> None:
        """A step was computed."""
        self._step_tokens.observe(tokens)
        self._generation_tokens.inc(generated)

    def observe_token(self, timings: Timings, now_s: float) -> None:
        """An answer got a token."""
        if timings.first_token_s is None:
            timings.first_token_s = now_s
            self._first_token_s.observe(now_s - timings.arrived_s)
        else:
            for histogram in self._between_tokens_s:
                histogram.observe(now_s - timings.last_token_s)
        timings.last_token_s = now_s

    def count_finished(
        self, reason: str, timings: Timings, now_s: float, *, prompt_tokens: int, generated: int, tokens_max: int
    ) -> None:
        """An answer ended: `stop`, `length` or `abort`."""
        self._success[reason].inc()
        self._request_s.observe(now_s - timings.arrived_s)
        self._request_prompt_tokens.observe(prompt_tokens)
        self._request_generation_tokens.observe(generated)
        self._request_tokens_max.observe(tokens_max)
        if timings.started_s is None or timings.first_token_s is None:
            return
        self._queue_s.observe(timings.started_s - timings.arrived_s)
        self._prefill_s.observe(timings.first_token_s - timings.started_s)
        self._decode_s.observe(now_s - timings.first_token_s)
        self._inference_s.observe(now_s - timings.started_s)
        if generated > 1:
            self._per_token_s.observe((now_s - timings.first_token_s) / (generated - 1))

    def count_embedding(self, prompt_tokens: int) -> None:
        """An embedding was computed, outside the batch."""
        self._prompt_tokens.inc(prompt_tokens)

    def set_asleep(self, level: int) -> None:
        """0 is awake; 1 has given its weights to the host's memory, 2 has dropped them."""
        for state, at in (("awake", 0), ("weights_offloaded", 1), ("discard_all", 2)):
            self._sleep_state.labels(**self._labels, sleep_state=state).set(level == at)

    def render(self) -> bytes:
        """The text that `/metrics` answers."""
        return generate_latest(self.registry)

    def _build_counters(self) -> None:
        self._prompt_tokens = self._counter("vllm:prompt_tokens", "Number of prefill tokens processed.")
        self._prompt_tokens_cached = self._counter("vllm:prompt_tokens_cached", "Number of cached prompt tokens.")
        by_source = Counter(
            "vllm:prompt_tokens_by_source",
            "Number of prompt tokens by source.",
            (*self._labels, "source"),
            registry=self.registry,
        )
        self._prompt_computed = by_source.labels(**self._labels, source="local_compute")
        self._prompt_found = by_source.labels(**self._labels, source="local_cache_hit")
        self._generation_tokens = self._counter("vllm:generation_tokens", "Number of generation tokens processed.")
        success = Counter(
            "vllm:request_success",
            "Count of successfully processed requests.",
            (*self._labels, "finished_reason"),
            registry=self.registry,
        )
        self._success = {reason: success.labels(**self._labels, finished_reason=reason) for reason in FINISH_REASONS}

    def _build_histograms(self, context_length: int) -> None:
        tokens = _tokens_up_to(context_length)
        self._first_token_s = self._histogram(
            "vllm:time_to_first_token_seconds", "Time to first token.", _FIRST_TOKEN_S
        )
        self._between_tokens_s = [
            self._histogram(name, "Inter-token latency.", _PER_TOKEN_S)
            for name in _spellings("vllm:inter_token_latency_seconds", self._names)
        ]
        self._per_token_s = self._histogram(
            "vllm:request_time_per_output_token_seconds", "Time per output token of a request.", _PER_TOKEN_S
        )
        self._request_s = self._histogram("vllm:e2e_request_latency_seconds", "E2E request latency.", _REQUEST_S)
        self._queue_s = self._histogram("vllm:request_queue_time_seconds", "Time in WAITING phase.", _REQUEST_S)
        self._inference_s = self._histogram("vllm:request_inference_time_seconds", "Time in RUNNING phase.", _REQUEST_S)
        self._prefill_s = self._histogram("vllm:request_prefill_time_seconds", "Time in PREFILL phase.", _REQUEST_S)
        self._decode_s = self._histogram("vllm:request_decode_time_seconds", "Time in DECODE phase.", _REQUEST_S)
        self._request_prompt_tokens = self._histogram("vllm:request_prompt_tokens", "Prefill tokens processed.", tokens)
        self._request_generation_tokens = self._histogram(
            "vllm:request_generation_tokens", "Generation tokens processed.", tokens
        )
        self._request_tokens_max = self._histogram(
            "vllm:request_params_max_tokens", "The max_tokens request parameter.", tokens
        )
        self._step_tokens = self._histogram("vllm:iteration_tokens_total", "Tokens per engine step.", _STEP_TOKENS)

    def _build_info(self, replica: Replica) -> None:
        limits = replica.scheduler.limits
        info = {
            "block_size": str(BLOCK_TOKENS),
            "cache_dtype": "auto",
            "enable_prefix_caching": str(limits.enable_prefix_caching),
            "gpu_memory_utilization": "0.9",
            "num_gpu_blocks": str(limits.num_gpu_blocks),
            "engine": "0",
        }
        described = Gauge(
            "vllm:cache_config_info", "Information of the LLMEngine CacheConfig", tuple(info), registry=self.registry
        )
        described.labels(**info).set(1)
        self._sleep_state = Gauge(
            "vllm:engine_sleep_state",
            "Engine sleep state; awake = 0 means engine is sleeping.",
            (*self._labels, "sleep_state"),
            registry=self.registry,
        )
        self.set_asleep(0)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, tuple(self._labels), registry=self.registry).labels(**self._labels)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        built = Histogram(name, text, tuple(self._labels), registry=self.registry, buckets=buckets)
        return built.labels(**self._labels)


class _ReplicaState(Collector):
    """What is read off the scheduler at each scrape."""

    def __init__(self, replica: Replica, labels: Mapping[str, str], names: MetricNames) -> None:
        self._replica = replica
        self._labels = labels
        self._names = names

    def collect(self) -> Iterator[Metric]:
        """The gauges and the scheduler's own counters (prometheus_client)."""
        scheduler = self._replica.scheduler
        running, waiting = len(scheduler.running), scheduler.waiting
        deferred = waiting if self._replica.paused else 0
        yield self._gauge("vllm:num_requests_running", "Number of requests in model execution batches.", running)
        yield self._gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.", waiting)
        yield self._waiting_by_reason({CAPACITY: waiting - deferred, DEFERRED: deferred})
        for name in _spellings("vllm:kv_cache_usage_perc", self._names):
            yield self._gauge(name, "KV-cache usage. 1 means 100 percent usage.", self._replica.kv_cache_usage)
        counts = scheduler.counts
        for name in _spellings("vllm:prefix_cache_queries", self._names):
            yield self._count(name, "Prefix cache queries, in queried tokens.", counts.prefix_cache_queries)
        for name in _spellings("vllm:prefix_cache_hits", self._names):
            yield self._count(name, "Prefix cache hits, in cached tokens.", counts.prefix_cache_hits)
        yield self._count("vllm:num_preemptions", "Cumulative number of preemptions.", counts.preemptions)

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(name, text, labels=tuple(self._labels))
        family.add_metric(tuple(self._labels.values()), value)
        return family

    def _count(self, name: str, text: str, value: float) -> Metric:
        family = CounterMetricFamily(name, text, labels=tuple(self._labels))
        family.add_metric(tuple(self._labels.values()), value)
        return family

    def _waiting_by_reason(self, waiting: Mapping[str, int]) -> Metric:
        family = GaugeMetricFamily(
            "vllm:num_requests_waiting_by_reason",
            "Number of waiting requests by reason.",
            labels=(*self._labels, "reason"),
        )
        for reason, value in waiting.items():
            family.add_metric((*self._labels.values(), reason), value)
        return family


def _spellings(name: str, names: MetricNames) -> tuple[str, ...]:
    if names == "current":
        return (name,)
    return (_RENAMED[name],) if names == "old" else (name, _RENAMED[name])


def _tokens_up_to(limit: int) -> tuple[float, ...]:
    """1, 2, 5, 10, 20, 50 … up to the context's length."""
    steps = (float(digit * 10**power) for power in count() for digit in (1, 2, 5))
    buckets = []
    for step in steps:
        if step > limit:
            break
        buckets.append(step)
    return tuple(buckets)

"""The replica's metrics, under the names vLLM gives them: a router cannot tell the two apart."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

FINISH_REASONS = ("stop", "length", "abort")

_SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0)
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)


class EngineMetrics:
    """All series of one replica, labelled with the model it serves."""

    def __init__(self, model: str) -> None:
        self.registry = CollectorRegistry()
        self._model = model
        self.prompt_tokens = self._counter("vllm:prompt_tokens", "Prompt tokens of admitted requests.")
        self.generation_tokens = self._counter("vllm:generation_tokens", "Tokens generated.")
        self.prefix_cache_queries = self._counter("vllm:prefix_cache_queries", "Prompt tokens looked up in the cache.")
        self.prefix_cache_hits = self._counter("vllm:prefix_cache_hits", "Prompt tokens found in the cache.")
        self.time_to_first_token_s = self._histogram(
            "vllm:time_to_first_token_seconds", "From arrival to the first token.", _SECONDS
        )
        self.inter_token_latency_s = self._histogram(
            "vllm:inter_token_latency_seconds", "Between two tokens of a request.", _SECONDS
        )
        self.e2e_latency_s = self._histogram(
            "vllm:e2e_request_latency_seconds", "From arrival to the last token.", _SECONDS
        )
        self.request_prompt_tokens = self._histogram(
            "vllm:request_prompt_tokens", "Prompt tokens of a finished request.", _TOKENS
        )
        self.request_generation_tokens = self._histogram(
            "vllm:request_generation_tokens", "Tokens generated for a finished request.", _TOKENS
        )
        self._success = Counter(
            "vllm:request_success",
            "Finished requests by how they ended.",
            ("model_name", "finished_reason"),
            registry=self.registry,
        )
        for reason in FINISH_REASONS:
            self._success.labels(model, reason)

    def observe_gauges(
        self, running: Callable[[], float], waiting: Callable[[], float], kv_cache_usage: Callable[[], float]
    ) -> None:
        """Where the gauges are read from at each scrape."""
        for name, text, read in (
            ("vllm:num_requests_running", "Requests being computed.", running),
            ("vllm:num_requests_waiting", "Requests waiting for a place in the batch.", waiting),
            ("vllm:kv_cache_usage_perc", "Share of the KV cache in use; 1 is all of it.", kv_cache_usage),
        ):
            Gauge(name, text, ("model_name",), registry=self.registry).labels(self._model).set_function(read)

    def count_finished(self, reason: str) -> None:
        """One more request ended: `stop`, `length` or `abort`."""
        self._success.labels(self._model, reason).inc()

    def render(self) -> bytes:
        """The text that `/metrics` answers."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, ("model_name",), registry=self.registry).labels(self._model)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, ("model_name",), registry=self.registry, buckets=buckets).labels(self._model)

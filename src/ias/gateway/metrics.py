"""The worker's numbers.

Plain counters, since a request passes them a dozen times; written to a file now and then, for the supervisor, which answers
/metrics for all workers, and for whoever takes this one's place.
"""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ias.contracts.spending import RateLimit
from ias.gateway.exchange import Exchange
from ias.gateway.metrics_export import (
    DURATION_BUCKETS_S,
    HistogramValues,
    Numbers,
    find_snapshot,
    join_labels,
    merge,
    save_snapshot,
)
from ias.gateway.record_lines import Timing

_CODES_MAX: Final = 200
_BUCKETS_S: Final = list(DURATION_BUCKETS_S)


class Histogram:
    """How often which duration was observed."""

    __slots__ = ("_counts", "_total")

    def __init__(self) -> None:
        self._counts = [0] * (len(_BUCKETS_S) + 1)
        self._total = 0.0

    def observe(self, value: float) -> None:
        """Count a duration in seconds. Most are short, so that looking from the first bound on finds it soon."""
        index = 0
        for bound in _BUCKETS_S:
            if value <= bound:
                break
            index += 1
        self._counts[index] += 1
        self._total += value

    def values(self) -> HistogramValues:
        """As it is exported."""
        return HistogramValues(list(self._counts), self._total)


class Tally:
    """What is counted of the requests with one endpoint, model and status."""

    __slots__ = ("cached_input_tokens", "durations", "first_bytes", "input_tokens", "output_tokens", "requests")

    def __init__(self, durations: Histogram, first_bytes: Histogram) -> None:
        self.requests = 0
        self.input_tokens = 0
        self.cached_input_tokens = 0
        self.output_tokens = 0
        self.durations = durations
        """Of the endpoint, shared by all its tallies."""
        self.first_bytes = first_bytes


class Metrics:
    """One worker's numbers.

    `slot` is the worker's place among its siblings. A restarted worker goes on counting from the last snapshot of the one
    before it, which counts until there is another: a crash loses what was counted since that
    snapshot (a second's worth), and never looks like negative traffic.
    """

    def __init__(self, run_dir: Path, slot: int) -> None:
        self.in_flight = 0
        self.internal_errors = 0
        self.redis_failures = 0
        self.reservations_exceeded = 0
        self.streams_cut_off = 0
        self.upstream_retries = 0
        self._tallies: dict[tuple[str, str, int], Tally] = {}
        self._refusals: defaultdict[str, int] = defaultdict(int)
        self._limit_refusals: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._durations: defaultdict[str, Histogram] = defaultdict(Histogram)
        self._first_bytes: defaultdict[str, Histogram] = defaultdict(Histogram)
        self._queue_waits: defaultdict[str, Histogram] = defaultdict(Histogram)
        self._sources: list[tuple[str, Callable[[], float], bool]] = []
        self._run_dir = run_dir
        self._slot = slot
        self._before = find_snapshot(run_dir, slot) or Numbers()

    def add_source(self, name: str, read: Callable[[], float], *, is_counter: bool = False) -> None:
        """Export a number that something else keeps."""
        self._sources.append((name, read, is_counter))

    def observe(self, exchange: Exchange, timing: Timing) -> None:
        """Count one request."""
        name = (exchange.endpoint.name, exchange.model, exchange.status)
        tally = self._tallies.get(name) or self._open(name)
        tally.requests += 1
        duration_s, ttft_s = timing.duration_s, timing.ttft_s
        tally.durations.observe(duration_s)
        if ttft_s is not None:
            tally.first_bytes.observe(ttft_s)
        if exchange.error_code is not None:
            self.count_refusal(exchange.error_code)
        usage = exchange.usage
        if usage is not None:
            tally.input_tokens += usage.input_tokens
            tally.output_tokens += usage.output_tokens
            tally.cached_input_tokens += usage.cached_input_tokens

    def _open(self, name: tuple[str, str, int]) -> Tally:
        tally = self._tallies[name] = Tally(self._durations[name[0]], self._first_bytes[name[0]])
        return tally

    def count_limit_refusal(self, limit: RateLimit) -> None:
        """Count a request that a rate limit refused."""
        self._limit_refusals[limit.metric, limit.scope_kind] += 1

    def observe_queue_wait(self, model: str, waited_s: float) -> None:
        """Count a request that had to wait for its place."""
        self._queue_waits[model].observe(waited_s)

    def count_refusal(self, code: str) -> None:
        """Count a refusal. Some codes are the backends' own; however many they make up, so many are told apart."""
        known = code in self._refusals or len(self._refusals) < _CODES_MAX
        self._refusals[code if known else "other"] += 1

    # -------------------------------------------------------------- export

    def collect(self) -> Numbers:
        """This slot's numbers, since the first worker in it."""
        numbers = Numbers(
            counters={
                "ias_gateway_requests_total": {
                    join_labels(endpoint, model, str(status)): tally.requests
                    for (endpoint, model, status), tally in self._tallies.items()
                },
                "ias_gateway_tokens_total": self._collect_tokens(),
                "ias_gateway_refusals_total": dict(self._refusals),
                "ias_gateway_rate_limit_refusals_total": {
                    join_labels(*key): n for key, n in self._limit_refusals.items()
                },
                "ias_gateway_internal_errors_total": {"": self.internal_errors},
                "ias_gateway_redis_failures_total": {"": self.redis_failures},
                "ias_gateway_reservations_exceeded_total": {"": self.reservations_exceeded},
                "ias_gateway_streams_cut_off_total": {"": self.streams_cut_off},
                "ias_gateway_upstream_retries_total": {"": self.upstream_retries},
            },
            gauges={"ias_gateway_in_flight": self.in_flight},
            histograms={
                "ias_gateway_request_duration_seconds": _values(self._durations),
                "ias_gateway_first_byte_seconds": _values(self._first_bytes),
                "ias_gateway_queue_wait_seconds": _values(self._queue_waits),
            },
        )
        for name, read, is_counter in self._sources:
            if is_counter:
                numbers.counters[name] = {"": read()}
            else:
                numbers.gauges[name] = read()
        merge(numbers, self._before, with_gauges=False)
        return numbers

    def _collect_tokens(self) -> dict[str, float]:
        tokens: defaultdict[str, float] = defaultdict(float)
        for (_, model, _), tally in self._tallies.items():
            if tally.input_tokens or tally.output_tokens:
                tokens[join_labels(model, "input")] += tally.input_tokens
                tokens[join_labels(model, "output")] += tally.output_tokens
            if tally.cached_input_tokens:
                tokens[join_labels(model, "cached_input")] += tally.cached_input_tokens
        return tokens

    def save(self) -> None:
        """Leave the numbers where the supervisor reads them."""
        save_snapshot(self._run_dir, self._slot, self.collect())


def _values(histograms: dict[str, Histogram]) -> dict[str, HistogramValues]:
    return {label: histogram.values() for label, histogram in histograms.items()}

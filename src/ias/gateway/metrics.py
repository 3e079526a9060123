"""The worker's numbers.

Plain counters, since a request passes them a dozen times; written to a file now and then, so that any worker can answer
/metrics for all of them.
"""

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import msgspec

from ias.contracts.spending import RateLimit
from ias.gateway.exchange import Exchange
from ias.gateway.record_lines import Timing

DURATION_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class HistogramValues(msgspec.Struct):
    """Counts per bucket (the last one is above all bounds) and the sum of what was observed."""

    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(DURATION_BUCKETS_S) + 1))
    total: float = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(DURATION_BUCKETS_S, value)] += 1
        self.total += value

    def add(self, other: "HistogramValues") -> None:
        """Count all that another has counted."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


class Numbers(msgspec.Struct):
    """Everything that is exported, as it stands in a snapshot file. Labels are joined by the unit separator."""

    counters: dict[str, dict[str, float]] = {}
    gauges: dict[str, float] = {}
    histograms: dict[str, dict[str, HistogramValues]] = {}


LABELS = {
    "ias_gateway_requests_total": ("endpoint", "model", "status"),
    "ias_gateway_tokens_total": ("model", "kind"),
    "ias_gateway_refusals_total": ("code",),
    "ias_gateway_rate_limit_refusals_total": ("metric", "scope"),
    "ias_gateway_request_duration_seconds": ("endpoint",),
    "ias_gateway_first_byte_seconds": ("endpoint",),
    "ias_gateway_queue_wait_seconds": ("model",),
}
HELP = {
    "ias_gateway_requests_total": "Requests by endpoint, model and HTTP status (499: the client left before an answer).",
    "ias_gateway_tokens_total": "Tokens billed, by kind.",
    "ias_gateway_refusals_total": "Requests that were not served, by error code.",
    "ias_gateway_rate_limit_refusals_total": "Requests that a rate limit refused, by what it counts and what it applies to.",
    "ias_gateway_request_duration_seconds": "From a request's head to the end of its answer.",
    "ias_gateway_first_byte_seconds": "From a request's head to the first byte of its answer.",
    "ias_gateway_queue_wait_seconds": "How long requests that had to wait for a place at a backend did so.",
    "ias_gateway_internal_errors_total": "Faults of the gateway itself.",
    "ias_gateway_redis_failures_total": "Commands that Redis refused.",
    "ias_gateway_redis_losses_total": "Times the connection to Redis was lost.",
    "ias_gateway_reservations_exceeded_total": "Requests that cost more than was reserved for them.",
    "ias_gateway_streams_cut_off_total": "Streams that were ended because they used up what was reserved for them.",
    "ias_gateway_upstream_retries_total": "Requests that were sent to another backend.",
    "ias_gateway_backend_wakes_total": "Calls to sleeping backends to wake up.",
    "ias_gateway_usage_records_total": "Usage records written to the spool.",
    "ias_gateway_usage_published_total": "Usage records confirmed by the bus.",
    "ias_gateway_spool_corrupt_lines_total": "Lines of dead workers' spools that could not be read.",
    "ias_gateway_publish_failures_total": "Attempts at publishing that failed.",
    "ias_gateway_rejected_documents_total": "Pushed documents that could not be read.",
    "ias_gateway_in_flight": "Requests being served.",
    "ias_gateway_connections": "Open client connections.",
    "ias_gateway_queue_length": "Requests that wait for a place at a backend.",
    "ias_gateway_upstream_in_flight": "Requests at backends.",
    "ias_gateway_spool_bytes": "Bytes of usage not yet published, of the whole host as each worker sees it.",
    "ias_gateway_settlements_waiting": "Settlements Redis has not acknowledged.",
    "ias_gateway_redis_up": "Workers connected to Redis.",
}
_CODES_MAX = 200
_SEPARATOR = "\x1f"
_SNAPSHOT = "metrics-{slot}.json"
_GAUGES_VALID_S = 5.0
"""A sibling's snapshot is written every second; one this old is a dead worker's, which has nothing open any more."""


class Tally:
    """What is counted of the requests with one endpoint, model and status."""

    __slots__ = ("cached_input_tokens", "durations", "first_bytes", "input_tokens", "output_tokens", "requests")

    def __init__(self, durations: HistogramValues, first_bytes: HistogramValues) -> None:
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
    before it, and until there is one, siblings go on counting the snapshot in: a crash loses what was counted since that
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
        self._durations: defaultdict[str, HistogramValues] = defaultdict(HistogramValues)
        self._first_bytes: defaultdict[str, HistogramValues] = defaultdict(HistogramValues)
        self._queue_waits: defaultdict[str, HistogramValues] = defaultdict(HistogramValues)
        self._sources: list[tuple[str, Callable[[], float], bool]] = []
        self._run_dir = run_dir
        self._slot = slot
        self._before = _read_numbers(run_dir / _SNAPSHOT.format(slot=slot)) or Numbers()

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
                    _join(endpoint, model, str(status)): tally.requests
                    for (endpoint, model, status), tally in self._tallies.items()
                },
                "ias_gateway_tokens_total": self._collect_tokens(),
                "ias_gateway_refusals_total": dict(self._refusals),
                "ias_gateway_rate_limit_refusals_total": {_join(*key): n for key, n in self._limit_refusals.items()},
                "ias_gateway_internal_errors_total": {"": self.internal_errors},
                "ias_gateway_redis_failures_total": {"": self.redis_failures},
                "ias_gateway_reservations_exceeded_total": {"": self.reservations_exceeded},
                "ias_gateway_streams_cut_off_total": {"": self.streams_cut_off},
                "ias_gateway_upstream_retries_total": {"": self.upstream_retries},
            },
            gauges={"ias_gateway_in_flight": self.in_flight},
            histograms={
                "ias_gateway_request_duration_seconds": dict(self._durations),
                "ias_gateway_first_byte_seconds": dict(self._first_bytes),
                "ias_gateway_queue_wait_seconds": dict(self._queue_waits),
            },
        )
        for name, read, is_counter in self._sources:
            if is_counter:
                numbers.counters[name] = {"": read()}
            else:
                numbers.gauges[name] = read()
        _merge(numbers, self._before, with_gauges=False)
        return numbers

    def _collect_tokens(self) -> dict[str, float]:
        tokens: defaultdict[str, float] = defaultdict(float)
        for (_, model, _), tally in self._tallies.items():
            if tally.input_tokens or tally.output_tokens:
                tokens[_join(model, "input")] += tally.input_tokens
                tokens[_join(model, "output")] += tally.output_tokens
            if tally.cached_input_tokens:
                tokens[_join(model, "cached_input")] += tally.cached_input_tokens
        return tokens

    def save(self) -> None:
        """Leave the numbers for the siblings."""
        path = self._run_dir / _SNAPSHOT.format(slot=self._slot)
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(msgspec.json.encode(self.collect()))
        temporary.replace(path)

    def render(self) -> bytes:
        """All workers' numbers in Prometheus' text format."""
        numbers = self.collect()
        for path in sorted(self._run_dir.glob(_SNAPSHOT.format(slot="*"))):
            sibling = None if path.name == _SNAPSHOT.format(slot=self._slot) else _read_numbers(path)
            if sibling is not None:
                _merge(numbers, sibling, with_gauges=_is_recent(path))
        return render_numbers(numbers)


def _read_numbers(path: Path) -> Numbers | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Numbers)
    except (OSError, msgspec.MsgspecError):
        return None


def _is_recent(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime < _GAUGES_VALID_S
    except OSError:
        return False


def _merge(into: Numbers, other: Numbers, *, with_gauges: bool) -> None:
    for name, values in other.counters.items():
        known = into.counters.setdefault(name, {})
        for labels, value in values.items():
            known[labels] = known.get(labels, 0) + value
    if with_gauges:
        for name, value in other.gauges.items():
            into.gauges[name] = into.gauges.get(name, 0) + value
    for name, histograms in other.histograms.items():
        merged = into.histograms[name] = dict(into.histograms.get(name, {}))
        for labels, histogram in histograms.items():
            total = HistogramValues()
            total.add(histogram)
            if labels in merged:
                total.add(merged[labels])
            merged[labels] = total


def _join(*labels: str) -> str:
    return _SEPARATOR.join(labels)


def _labels(name: str, joined: str, **more: str) -> str:
    names = LABELS.get(name, ())
    pairs = [*zip(names, joined.split(_SEPARATOR), strict=True)] if names else []
    pairs += more.items()
    if not pairs:
        return ""
    return "{" + ",".join(f'{label}="{_escape(value)}"' for label, value in pairs) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def render_numbers(numbers: Numbers) -> bytes:
    """Prometheus' text format."""
    lines: list[str] = []
    for name, values in numbers.counters.items():
        lines += [f"# HELP {name} {HELP[name]}", f"# TYPE {name} counter"]
        lines += [
            f"{name}{_labels(name, joined)} {value:g}" if value < 1e6 else f"{name}{_labels(name, joined)} {value:.0f}"
            for joined, value in values.items()
        ]
    for name, value in numbers.gauges.items():
        lines += [f"# HELP {name} {HELP[name]}", f"# TYPE {name} gauge", f"{name} {value:.0f}"]
    for name, histograms in numbers.histograms.items():
        lines += [f"# HELP {name} {HELP[name]}", f"# TYPE {name} histogram"]
        for joined, histogram in histograms.items():
            lines += _render_histogram(name, joined, histogram)
    return ("\n".join(lines) + "\n").encode()


def _render_histogram(name: str, joined: str, histogram: HistogramValues) -> list[str]:
    lines = []
    seen = 0
    for bound, count in zip((*DURATION_BUCKETS_S, float("inf")), histogram.counts, strict=True):
        seen += count
        text = "+Inf" if bound == float("inf") else f"{bound:g}"
        lines.append(f"{name}_bucket{_labels(name, joined, le=text)} {seen}")
    lines.append(f"{name}_sum{_labels(name, joined)} {histogram.total:.6f}")
    lines.append(f"{name}_count{_labels(name, joined)} {seen}")
    return lines

"""The workers' numbers as they leave them: snapshots in files, which add up to the gateway's, in Prometheus' text."""

import time
from pathlib import Path
from typing import Final

import msgspec

DURATION_BUCKETS_S: tuple[float, ...] = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip
"""Of any length to the type checker: compiled code would make a tuple of a known length anew at each use."""


_GAUGES_VALID_S: Final = 5.0
"""A worker's snapshot is written every second; one this old is a dead worker's, which has nothing open any more."""


class HistogramValues(msgspec.Struct):
    """Counts per bucket (the last one is above all bounds) and the sum of what was observed."""

    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(DURATION_BUCKETS_S) + 1))
    total: float = 0.0

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
    "ias_gateway_unguarded_admissions_total": "Requests let through, within what an org allows, while Redis was away.",
    "ias_gateway_unguarded_refusals_total": "Requests refused while Redis was away: more than their org allows.",
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
    "ias_gateway_unguarded_nano_usd": "What orgs have taken, since Redis went away, of what they allow without it.",
    "ias_gateway_redis_up": "Workers connected to Redis.",
}
_SEPARATOR = "\x1f"


def save_snapshot(run_dir: Path, slot: int, numbers: Numbers) -> None:
    """Leave the numbers of a worker, by its place among its siblings."""
    path = _snapshot(run_dir, slot)
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(msgspec.json.encode(numbers))
    temporary.replace(path)


def find_snapshot(run_dir: Path, slot: int) -> Numbers | None:
    """What the worker at that place, or the one before it, left last."""
    return _read_numbers(_snapshot(run_dir, slot))


def collect_snapshots(run_dir: Path) -> Numbers:
    """The numbers of all workers. What the dead ones counted counts on; what they had open does not."""
    together = Numbers()
    for path in sorted(run_dir.glob(_snapshot(run_dir, "*").name)):
        numbers = _read_numbers(path)
        if numbers is not None:
            merge(together, numbers, with_gauges=_is_recent(path))
    return together


def _snapshot(run_dir: Path, slot: int | str) -> Path:
    return run_dir / f"metrics-{slot}.json"


def _is_recent(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime < _GAUGES_VALID_S
    except OSError:
        return False


def _read_numbers(path: Path) -> Numbers | None:
    """A snapshot, without numbers that only another release knows; None where there is none that can be read."""
    try:
        numbers = msgspec.json.decode(path.read_bytes(), type=Numbers)
    except (OSError, msgspec.MsgspecError):
        return None
    for values in (numbers.counters, numbers.gauges, numbers.histograms):
        for unknown in values.keys() - HELP.keys():
            del values[unknown]
    return numbers


def merge(into: Numbers, other: Numbers, *, with_gauges: bool) -> None:
    """Add the other's numbers."""
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


def join_labels(*labels: str) -> str:
    """Labels' values as one key."""
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

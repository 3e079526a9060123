"""Prometheus' text format, as far as the prober reads it: the values of one metric."""

import math
import re

_REST_OF_SAMPLE = re.compile(r"(?:\{([^\n]*)\})? +(\S+)(?: +-?\d+)?\r?(?:\n|$)")


def list_values(metrics: str, name: str, labels: re.Pattern[str] | None = None) -> list[float]:
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

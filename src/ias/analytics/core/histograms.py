"""Latency histograms: fixed buckets that grow by a constant factor, so that histograms of hours, models and keys add up exactly.

Bucket i holds latencies up to `2 ** (i / 4)` milliseconds (each bound is 19 % above the one before); the last one holds all above.
A percentile read from the sum is therefore exact to within one bucket.
"""

import math
from collections.abc import Sequence

BUCKETS = 81
"""The last bound is 2**20 ms: seventeen minutes."""
_PER_DOUBLING = 4


def bucket_of(latency_ms: float) -> int:
    """The index of the bucket that a latency falls in."""
    if latency_ms <= 1:
        return 0
    return min(BUCKETS - 1, math.ceil(_PER_DOUBLING * math.log2(latency_ms) - 1e-9))


def upper_bound_ms(bucket: int) -> float:
    """The largest latency of a bucket; of the last one, its lower end."""
    return math.exp2(min(bucket, BUCKETS - 1) / _PER_DOUBLING)


def percentile_ms(histogram: Sequence[int], percent: float) -> float | None:
    """The upper bound of the bucket that the percentile lies in; None when nothing was measured."""
    total = sum(histogram)
    if total == 0:
        return None
    wanted = math.ceil(total * percent / 100)
    seen = 0
    for bucket, count in enumerate(histogram):
        seen += count
        if seen >= wanted:
            return round(upper_bound_ms(bucket), 3)
    raise AssertionError("the buckets add up to the total")

"""Latency histograms add up and tell percentiles to within one bucket."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ias.analytics.core.histograms import BUCKETS, bucket_of, percentile_ms, upper_bound_ms

LATENCY = st.floats(min_value=0, max_value=2**20)


@given(LATENCY)
def test_a_latency_is_within_its_buckets_bounds(latency_ms: float) -> None:
    bucket = bucket_of(latency_ms)
    assert latency_ms <= upper_bound_ms(bucket) * (1 + 1e-9)
    assert bucket == 0 or latency_ms > upper_bound_ms(bucket - 1)


@given(st.lists(LATENCY, min_size=1, max_size=50), st.sampled_from([50, 95, 99, 100]))
def test_a_percentile_is_the_bound_above_the_true_one(latencies_ms: list[float], percent: float) -> None:
    histogram = [0] * BUCKETS
    for latency_ms in latencies_ms:
        histogram[bucket_of(latency_ms)] += 1
    true_ms = sorted(latencies_ms)[-(-len(latencies_ms) * int(percent) // 100) - 1]
    assert percentile_ms(histogram, percent) == round(upper_bound_ms(bucket_of(true_ms)), 3)


def test_what_is_beyond_the_last_bound_is_in_the_last_bucket() -> None:
    assert bucket_of(1e300) == BUCKETS - 1


@pytest.mark.parametrize("histogram", [[], [0], [0] * BUCKETS])
def test_nothing_measured_has_no_percentile(histogram: list[int]) -> None:
    assert percentile_ms(histogram, 50) is None

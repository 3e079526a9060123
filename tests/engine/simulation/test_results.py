import pytest
from hypothesis import given
from hypothesis import strategies as st

from ias.engine.blocks import BLOCK_TOKENS
from ias.engine.simulation.prompts import Prompt
from ias.engine.simulation.results import Record, fairness, jain, percentiles, summarize


def served(tenant: str, tokens: int, arrived_s: float = 1.0, ttft_s: float = 0.1, status: str = "ok") -> Record:
    return Record(0, tenant, tokens, arrived_s, 0, 0, arrived_s + ttft_s, arrived_s + 1, 0, 1, status)  # type: ignore[arg-type]


def test_jains_index_is_one_for_equals_and_one_of_n_for_a_monopoly() -> None:
    assert jain([3, 3, 3]) == 1
    assert jain([5, 0, 0, 0]) == pytest.approx(0.25)
    assert jain([0, 0]) == 1


def test_a_tenant_that_asks_little_is_entitled_to_little() -> None:
    modest = [served("modest", 10), *[served("greedy", 10) for _ in range(9)]]
    assert fairness(modest, since_s=0, until_s=10) == pytest.approx(1)
    starved = [served("modest", 50, status="refused"), *[served("greedy", 10) for _ in range(9)]]
    assert fairness(starved, since_s=0, until_s=10) == pytest.approx(0.5)


def test_goodput_counts_what_met_the_objective_and_attainment_all_that_was_asked() -> None:
    records = [served("a", 1, ttft_s=ttft_s) for ttft_s in (0.1, 0.2, 0.9)] + [served("a", 1, status="failed")]
    summary = summarize(records, since_s=0, until_s=2, ttft_objective_s=0.5)
    assert (summary.requests, summary.ok, summary.goodput, summary.attainment) == (4, 3, 1.0, 0.5)


def test_percentiles_are_values_that_occurred() -> None:
    found = percentiles([float(value) for value in range(1, 101)])
    assert (found.p50, found.p90, found.p99) == (50, 90, 99)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 60)), max_size=8), st.integers(0, 8))
def test_prompts_are_named_alike_exactly_as_far_as_they_are_alike(parts: list[tuple[int, int]], same: int) -> None:
    one = other = Prompt()
    for number, (content, tokens) in enumerate(parts):
        one = one.extend(content, tokens)
        other = other.extend(content if number < same else content + 100, tokens)
    alike = sum(tokens for _, tokens in parts[:same]) // BLOCK_TOKENS
    assert len(one.names) == one.tokens // BLOCK_TOKENS
    assert [a == b for a, b in zip(one.names, other.names, strict=True)] == [
        index < alike for index in range(len(one.names))
    ]


def test_another_salt_names_nothing_alike() -> None:
    one, other = (Prompt(salt).extend(1, 200) for salt in (1, 2))
    assert not set(one.names) & set(other.names)

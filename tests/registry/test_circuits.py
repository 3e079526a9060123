"""The circuit breaker, by its rules."""

from hypothesis import given
from hypothesis import strategies as st

from ias.registry.core.circuits import CircuitBreaker, CircuitRules

RULES = CircuitRules()


def opened(at: float = 0.0, breaker: CircuitBreaker | None = None) -> CircuitBreaker:
    breaker = breaker or CircuitBreaker(RULES)
    breaker.observe(0, RULES.failures_min, at)
    assert breaker.advance(at, is_ready=True)
    assert breaker.state == "open"
    return breaker


def test_a_few_failures_among_many_successes_open_nothing() -> None:
    breaker = CircuitBreaker(RULES)
    breaker.observe(20, 19, 0)
    assert not breaker.advance(0, is_ready=True)
    breaker.observe(0, 1, 1)
    assert breaker.advance(1, is_ready=True), "now it is half of them"
    assert "20 of 40 requests failed" in breaker.reason


def test_few_failures_open_nothing_whatever_their_share() -> None:
    breaker = CircuitBreaker(RULES)
    breaker.observe(0, RULES.failures_min - 1, 0)
    assert not breaker.advance(0, is_ready=True)
    breaker.observe(1, 1, RULES.window_s + 1)
    assert not breaker.advance(RULES.window_s + 1, is_ready=True), "those before are forgotten"


def test_failures_one_after_the_other_open_it_however_rarely_it_is_asked() -> None:
    breaker = CircuitBreaker(RULES)
    for number in range(RULES.failures_min):
        assert breaker.state == "closed"
        breaker.observe(0, 1, number * 2 * RULES.window_s)
        breaker.advance(number * 2 * RULES.window_s, is_ready=True)
    assert breaker.state == "open"
    assert f"the last {RULES.failures_min} requests failed" in breaker.reason


def test_an_open_circuit_is_tried_and_closes_when_it_works() -> None:
    breaker = opened()
    assert not breaker.advance(RULES.open_s - 0.1, is_ready=True)
    assert breaker.advance(RULES.open_s, is_ready=True)
    assert breaker.state == "half_open"
    breaker.observe(RULES.successes_min - 1, 0, 6)
    assert not breaker.advance(6, is_ready=True)
    breaker.observe(1, 0, 7)
    assert breaker.advance(7, is_ready=True)
    assert (breaker.state, breaker.reason) == ("closed", "")


def test_each_opening_is_twice_as_long_as_the_one_before_up_to_a_limit() -> None:
    breaker, now, lengths = opened(), 0.0, []
    for _ in range(9):
        began = now
        while breaker.state == "open":
            now += 0.5
            breaker.advance(now, is_ready=True)
        lengths.append(now - began)
        breaker.observe(2, 1, now)  # a single failure is enough
        assert breaker.advance(now, is_ready=True)
    assert lengths == [5, 10, 20, 40, 80, 160, 300, 300, 300]


def test_after_a_quiet_while_the_next_opening_is_a_first_one() -> None:
    breaker = opened()
    for now, succeeded in ((5.0, 0), (6.0, 3), (6.0 + RULES.forget_s, 0)):
        breaker.observe(succeeded, 0, now)
        breaker.advance(now, is_ready=True)
    assert breaker.state == "closed"
    opened(200.0, breaker)
    assert breaker.advance(200.0 + RULES.open_s, is_ready=True)


def test_a_half_open_circuit_that_nobody_tries_closes_only_when_the_probes_find_nothing_wrong() -> None:
    breaker = opened()
    breaker.advance(5, is_ready=True)
    assert not breaker.advance(5 + RULES.untried_s, is_ready=False)
    assert breaker.advance(5 + RULES.untried_s, is_ready=True)
    assert breaker.state == "closed"


@given(
    st.lists(st.tuples(st.floats(0, 30), st.integers(0, 50), st.integers(0, 50), st.booleans()), max_size=60),
)
def test_whatever_happens_a_circuit_that_works_again_closes(steps: list[tuple[float, int, int, bool]]) -> None:
    breaker, now = CircuitBreaker(RULES), 0.0
    for wait, succeeded, failed, is_ready in steps:
        now += wait
        breaker.observe(succeeded, failed, now)
        before = breaker.state
        assert breaker.advance(now, is_ready=is_ready) == (breaker.state != before)
        assert (before, breaker.state) not in {("closed", "half_open"), ("open", "closed")}
    for _ in range(int(RULES.open_max_s + RULES.window_s) + 2):
        now += 1
        breaker.observe(5, 0, now)
        breaker.advance(now, is_ready=True)
    assert breaker.state == "closed"

import json

import pytest

from ias.contracts.backend_states import STALE_AFTER_S, BackendState, BackendStates
from ias.gateway.routing.candidates import fresh_states
from ias.gateway.routing.loads import Place
from ias.gateway.routing.model_router import Verdict
from tests.gateway.routing.world import backend, chosen, place, prompt, ready, route, router


@pytest.mark.parametrize(
    ("obstacle", "bad", "state"),
    [
        ("disabled", {"enabled": False}, ready()),
        ("draining", {"draining": True}, ready()),
        ("no_weight", {"weight": 0}, ready()),
        ("unready", {}, BackendState(health="unready", since=0)),
        ("cold", {}, BackendState(health="cold", since=0)),
        ("circuit_open", {}, ready(circuit="open")),
    ],
)
def test_what_speaks_against_a_backend_keeps_requests_from_it_and_is_told(obstacle, bad, state) -> None:
    made = router(backend("a", **bad), backend("b"), states={"a": state, "b": ready()})
    for _ in range(20):
        ask = prompt("hello")
        assert chosen(made, ask) == "b"
        assert json.loads(made.explain(ask))["a"] == obstacle


def test_a_backend_of_unknown_health_serves() -> None:
    assert chosen(router(backend("a"), states={"a": BackendState(health="unknown", since=0)}), prompt("x")) == "a"


def test_what_the_registry_said_long_ago_is_not_believed() -> None:
    document = BackendStates(version=1, written_at=1000.0, states={"a": BackendState(health="unready", since=0)})
    assert fresh_states(document, 1000.0 + STALE_AFTER_S) == document.states
    assert fresh_states(document, 1001.0 + STALE_AFTER_S) == {}
    assert fresh_states(None, 1000.0) == {}


def test_a_higher_tier_is_used_only_when_the_lower_one_cannot_serve() -> None:
    made = router(backend("a"), backend("b"), backend("spare", tier=1))
    assert {chosen(made, prompt(f"hello {n}")) for n in range(50)} <= {"a", "b"}
    made.update(made.route, {"a": BackendState(health="unready", since=0)}, now_s=0, unix_s=1000)
    assert {chosen(made, prompt(f"hello {n}")) for n in range(50)} == {"b"}
    ask = prompt("hello")
    ask.tried = ("b",)
    assert chosen(made, ask) == "spare"


def test_a_half_open_circuit_takes_one_request_at_a_time() -> None:
    made = router(backend("a"), states={"a": ready(circuit="half_open")})
    first = place(made, prompt("x"))
    assert made.ask(prompt("x")) is Verdict.BUSY
    first.release()
    assert isinstance(made.ask(prompt("x")), Place)


def test_a_backend_bears_its_concurrency_shared_among_the_workers() -> None:
    made = router(backend("a", concurrency_max=9))
    made.update(made.route, {}, now_s=0, unix_s=1000, sharers=4)
    places = [place(made, prompt("x")) for _ in range(2)]
    assert made.ask(prompt("x")) is Verdict.BUSY
    places[0].release()
    assert isinstance(made.ask(prompt("x")), Place)


def test_a_backend_whose_cache_is_full_is_given_nothing_more() -> None:
    made = router(backend("a"), backend("b"), states={"a": ready(kv_cache_usage=0.95), "b": ready()})
    place(made, prompt("x"))
    assert {place(made, prompt(f"{n}")).load.backend_id for n in range(20)} <= {"a", "b"}
    assert made.loads["a"].requests <= 1


def test_what_failed_a_moment_ago_is_asked_only_when_nobody_else_is_left() -> None:
    made = router(backend("a"), backend("b"))
    made.loads["a"].fail(10.0)
    made.update(made.route, {}, now_s=10.0, unix_s=1000)
    assert {chosen(made, prompt(f"{n}")) for n in range(20)} == {"b"}
    ask = prompt("x")
    ask.tried = ("b",)
    assert chosen(made, ask) == "a"
    made.update(made.route, {}, now_s=made.survey.valid_until, unix_s=1000)
    assert {chosen(made, prompt(f"{n}", output_tokens=9)) for n in range(50)} == {"a", "b"}


@pytest.mark.parametrize("ramp_s", [4, 30, 600])
def test_a_recovered_backend_comes_back_slowly(ramp_s: int) -> None:
    states = {"a": ready(since=1000, ramps_until=1000 + ramp_s)}
    made = router(backend("a"), backend("b"), strategy="weighted", states=states)

    def share() -> float:
        return sum(chosen(made, prompt("x")) == "a" for _ in range(2000)) / 2000

    assert 0.05 < share() < 0.15
    made.update(made.route, states, now_s=1, unix_s=1000 + ramp_s / 2)
    assert 0.25 < share() < 0.45
    made.update(made.route, states, now_s=2, unix_s=1001 + ramp_s)
    assert 0.45 < share() < 0.55


def test_nobody_and_nobody_awake_are_told_apart() -> None:
    cold = BackendState(health="cold", since=0)
    assert router(backend("a"), states={"a": cold}).ask(prompt("x")) is Verdict.COLD
    assert router(backend("a", enabled=False), states={"a": cold}).ask(prompt("x")) is Verdict.NONE
    assert router().ask(prompt("x")) is Verdict.NONE


def test_loads_outlive_changes_of_the_route() -> None:
    made = router(backend("a"), backend("b"))
    held = place(made, prompt("x"))
    made.update(route(backend("c"), backend(held.load.backend_id)), {}, now_s=0, unix_s=1000)
    assert made.loads[held.load.backend_id].requests == 1
    held.release()
    assert made.loads[held.load.backend_id].requests == 0

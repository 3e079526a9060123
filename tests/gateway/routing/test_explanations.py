import json
from typing import Any

from ias.contracts.backend_states import BackendState
from ias.gateway.routing.asks import Ask
from ias.gateway.routing.model_router import ModelRouter
from tests.gateway.routing.world import backend, place, prompt, ready, router


def explained(of: ModelRouter, ask: Ask) -> dict[str, Any]:
    """Every backend by name, each told once."""
    members = json.loads(of.explain(ask), object_pairs_hook=list)
    assert len(dict(members)) == len(members)
    return dict(members)


def test_every_backend_is_told_with_its_burden_or_why_it_could_not_be_chosen() -> None:
    backends = [backend("a"), backend("b"), backend("off", enabled=False), backend("spare", tier=1)]
    made = router(*backends, backend("ill"), states={"ill": BackendState(health="unready", since=0)})
    ask = prompt("hello " * 100)
    place(made, ask)
    found = explained(made, ask)
    assert found == {"a": 225, "b": found["b"], "off": "disabled", "ill": "unready", "spare": "not_considered"} or (
        found == {"a": found["a"], "b": 225, "off": "disabled", "ill": "unready", "spare": "not_considered"}
    )


def test_each_request_is_told_the_burdens_that_it_was_placed_by() -> None:
    made = router(backend("a"), backend("b"))
    first, second = prompt("x" * 400, is_streamed=False), prompt("x" * 400, is_streamed=False)
    home = place(made, first).load.backend_id
    place(made, second)
    assert explained(made, first)[home] < 0  # the owner of its beginning
    assert explained(made, second)[home] == 100 + 1.5 * (
        100 - 64
    )  # one request there, and a beginning of 64 tokens known


def test_what_failed_a_request_is_told_and_so_is_what_has_changed_meanwhile() -> None:
    made = router(backend("a"), backend("b"), strategy="least_tokens")
    before, after = prompt("x"), prompt("x")
    place(made, before)
    made.update(made.route, {"a": ready(circuit="open")}, now_s=0, unix_s=1000)
    place(made, after)
    assert explained(made, after)["a"] == "circuit_open"
    assert isinstance(explained(made, before)["a"], int)
    again = prompt("x")
    again.tried = ("b", "gone")
    made.update(made.route, {}, now_s=0, unix_s=1000)
    place(made, again)
    assert explained(made, again)["b"] == explained(made, again)["gone"] == "failed"


def test_where_nothing_is_weighed_nothing_is_said_of_burdens() -> None:
    made = router(backend("100%d"), backend("b"), strategy="priority")
    ask = prompt("x")
    place(made, ask)
    assert explained(made, ask) == {"100%d": "not_considered", "b": "not_considered"}

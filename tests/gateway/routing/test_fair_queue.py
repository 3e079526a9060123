import json

from ias.gateway.routing.asks import Ask
from ias.gateway.routing.fair_queue import FairQueue, Waiting
from ias.gateway.routing.given_work import Kept, join_kept, window_of
from ias.gateway.routing.loads import Place
from ias.gateway.routing.model_router import ModelRouter
from tests.gateway.routing.world import backend, place, prompt, ready, router


def waiting(org: str, *, since: float = 0.0, **more) -> Waiting:
    return Waiting(Ask(org, tokens=100, **more), None, since)


def serve(queue: FairQueue) -> Waiting:
    first = next(queue.next())
    queue.remove(first)
    queue.charge(first.ask.org_id, first.ask.work, 0.0, first.ask.weight)
    return first


def test_orgs_take_turns_however_many_requests_each_has() -> None:
    queue = FairQueue(1000)
    for _ in range(100):
        queue.push(waiting("flood"))
    for _ in range(5):
        queue.push(waiting("modest"))
    assert sum(serve(queue).ask.org_id == "modest" for _ in range(10)) == 5


def test_turns_go_by_work_and_not_by_requests() -> None:
    queue = FairQueue(1000)
    for _ in range(100):
        queue.push(Waiting(Ask("long", tokens=900), None, 0.0))
        queue.push(Waiting(Ask("short", tokens=100), None, 0.0))
    served = [serve(queue).ask.org_id for _ in range(60)]
    assert served.count("short") / served.count("long") == 9


def test_work_is_given_in_proportion_to_weights() -> None:
    queue = FairQueue(1000)
    for _ in range(100):
        queue.push(waiting("small", weight=100))
        queue.push(waiting("large", weight=300))
    served = [serve(queue).ask.org_id for _ in range(80)]
    assert served.count("large") == 3 * served.count("small")


def test_a_weight_that_changes_leaves_nothing_on_account() -> None:
    queue = FairQueue(1000)
    queue.charge("a", 300, 0.0, 100)
    queue.charge("a", 300, 0.0, 400)
    for _ in range(2):
        queue.settle("a", charged=300, used=300)
    org = queue._orgs["a"]
    assert org.unsettled == 0
    assert org.work == 1.5


def test_who_takes_less_than_its_weight_gives_it_is_modest() -> None:
    queue = FairQueue(1000)
    queue.charge("large", 90.0, 0.0, 400)
    queue.charge("small", 160.0, 0.0, 100)
    assert queue.share(0.0) == ({"large"}, 90.0, 160.0)


def test_what_was_cached_is_given_back_and_what_is_in_flight_counts() -> None:
    queue = FairQueue(1000)
    for _ in range(50):
        queue.push(waiting("cached"))
        queue.push(waiting("computed"))
    for _ in range(30):
        served = serve(queue)
        queue.settle(served.ask.org_id, charged=100, used=10 if served.ask.org_id == "cached" else 100)
    left = sum(
        w.ask.org_id == "computed"
        for org in queue._orgs.values()
        for line in org.lines.values()
        for w in line
        if w.is_waiting
    )
    assert 50 - left < 5


def test_absence_earns_nothing() -> None:
    queue = FairQueue(1000)
    queue.charge("late", 1, 0.0)
    queue.settle("late", charged=1, used=1)
    for _ in range(50):
        queue.push(waiting("busy"))
    for _ in range(20):
        queue.settle(serve(queue).ask.org_id, charged=100, used=100)
    for _ in range(50):
        queue.push(waiting("late"))
    served = [serve(queue).ask.org_id for _ in range(20)]
    assert 9 <= served.count("late") <= 11


def test_priorities_order_an_orgs_own_requests_and_take_nothing_from_others() -> None:
    queue = FairQueue(1000)
    for priority in ("low", "normal", "high"):
        queue.push(waiting("a", priority=priority))
        queue.push(waiting("b", priority="low"))
    served = [serve(queue).ask for _ in range(6)]
    assert [ask.priority for ask in served if ask.org_id == "a"] == ["high", "normal", "low"]
    assert {ask.org_id for ask in served[:2]} == {"a", "b"}


def test_a_full_queue_sends_the_newest_of_whoever_has_most_away() -> None:
    queue = FairQueue(10)
    flood = [waiting("flood") for _ in range(10)]
    assert [queue.push(one) for one in flood] == [None] * 10
    assert queue.push(waiting("modest")) is flood[-1]
    again = waiting("flood")
    assert queue.push(again) is again
    assert queue.length == 10


def test_who_leaves_is_out_at_once_and_who_waits_too_long_is_told() -> None:
    queue = FairQueue(10)
    first, second, third = (waiting("a", since=float(n)) for n in range(3))
    for one in (first, second, third):
        queue.push(one)
    queue.remove(first)
    queue.remove(first)
    assert queue.length == 2
    assert queue.overdue(1.0) == [second]
    assert [serve(queue)] == [third]
    assert queue.length == 0
    assert list(queue.next()) == []


def test_what_is_known_of_orgs_is_bounded() -> None:
    queue = FairQueue(10)
    for n in range(30_000):
        queue.charge(f"org-{n}", 1.0, 0.0)
        queue.settle(f"org-{n}", charged=1, used=0)
    assert len(queue._orgs) <= 10_001
    queue.share(1000.0)
    assert not queue._near, "those who are away cost nothing"


def test_what_others_gave_counts_for_who_is_modest_until_it_is_old() -> None:
    queue = FairQueue(10)
    queue.tells = True
    queue.charge("a", 1000.0, 0.0)
    queue.charge("b", 1000.0, 0.0)
    assert queue.tell(1) in ({"a": 1000}, {"b": 1000})
    assert queue.tell(9) == {}
    queue.hear({"a": 1000.0, "b": 9000.0, "elsewhere": 100.0}, 0.0)
    queue.charge("a", 500.0, 0.0)
    assert queue.share(0.0) == ({"a", "elsewhere"}, 1600.0, 9000.0)
    assert queue.share(60.0).modest == set()


def eight() -> ModelRouter:
    return router(*(backend(f"b{n}") for n in range(8)), states={f"b{n}": ready() for n in range(8)})


def begin(made: ModelRouter, org: str, count: int) -> list[Place]:
    places = []
    for n in range(count):
        ask = prompt(f"{org} {n} " * 100, org)
        found = made.ask(ask)
        if isinstance(found, Place):
            made.queue.charge(org, ask.work, 0.0, ask.weight, found)
            places.append(found)
    return places


def where(places: list[Place]) -> set[str]:
    return {place_.load.backend_id for place_ in places}


def test_a_newcomer_fills_the_same_half_of_the_backends_at_all_workers() -> None:
    filled = []
    for _ in range(2):
        made = eight()
        assert len(where(begin(made, "here", 24))) == 8, "nobody else is here"
        made.look_at_shares(0.1)
        first, *more = begin(made, "new", 40)
        filled.append(where(more))
        assert len(filled[-1]) == 4
        for place_ in (first, *more):
            place_.begin()
        assert begin(made, "new", 1), "its prompts are begun"
        made.look_at_shares(2.0)
        assert not made.queue.newcomers
    assert filled[0] == filled[1]


def test_who_is_here_keeps_out_of_a_newcomers_way() -> None:
    made = eight()
    made.update(made.route, {f"b{n}": ready() for n in range(8)}, now_s=0.0, unix_s=1000.0, sharers=2)
    begin(made, "here", 1)
    made.look_at_shares(0.1)
    crowd = begin(made, "new", 12)
    assert not where(begin(made, "here", 4)) & where(crowd[1:])


def flooded() -> ModelRouter:
    """One org has had twenty times as much as another, and far more of it waits."""
    made = eight()
    for n in range(40):
        for org, count in (("flood", 20), ("modest", 1)):
            made.queue.charge(org, 1000.0 * count, n / 10)
    for n in range(200):
        made.queue.push(Waiting(prompt(f"{n} " * 2000, "flood"), None, 4.0))
    return made


def test_while_one_org_floods_backends_are_kept_free_for_those_who_take_less() -> None:
    made = flooded()
    at_once = [given for _, given in made.next_placed(4.0)]
    assert len(where(at_once)) == 8, "nobody has waited for long"
    made.look_at_shares(4.4)
    for place_ in at_once:
        place_.begin()
    found = list(made.next_placed(4.5))
    placed = where([given for _, given in found])
    assert len(placed) == 6
    told = json.loads(made.explain(found[0][0].ask))
    assert {name for name, why in told.items() if why == "kept_free"} == made._kept
    assert place(made, prompt("hello", "modest")).load.backend_id not in placed


def test_who_waits_for_a_cache_keeps_nothing_free() -> None:
    made = eight()
    made.queue.charge("modest", 10.0, 0.0)
    cached = place(made, prompt("the same " * 4000, "flood"))
    made.queue.charge("flood", 10_000.0, 0.0)
    for _ in range(9):
        made.queue.push(Waiting(prompt("the same " * 4000, "flood"), None, 0.0))
    for now_s in (0.0, 0.2, 0.4, 0.6):
        assert not list(made.next_placed(now_s))
        assert made.kept_needed == 0
    cached.begin()
    assert where([given for _, given in made.next_placed(0.7)]) == {cached.load.backend_id}


def test_what_one_worker_keeps_free_all_do_for_as_long_as_it_tells() -> None:
    made = flooded()
    made.hear_kept(Kept(most=3, surely=2), 4.0)
    assert len(where([given for _, given in made.next_placed(4.0)])) == 5, "at once"
    made.look_at_shares(4.1)
    assert len(made._kept) == 3
    assert made._surely_kept < made._kept or made._sharers == 1
    for waiting_ in made.queue.overdue(5.0):
        made.queue.remove(waiting_)
    made.look_at_shares(60.0)
    assert not made._kept


def test_surely_kept_is_what_all_have_heard_of() -> None:
    window = window_of(100.0)
    assert join_kept({}, 100.0) == (0, 0)
    assert join_kept({window: {0, 4}}, 100.0) == (4, 0), "a moment ago nobody kept any"
    assert join_kept({window - 1: {3}, window: {0, 2}}, 100.0) == (3, 2)
    assert join_kept({window - 1: {3}}, 100.0) == (3, 3), "nobody has told anything yet"
    assert join_kept({window - 2: {3}}, 100.0) == (0, 0)

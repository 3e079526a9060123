import json

from ias.gateway.routing.asks import Ask
from ias.gateway.routing.fair_queue import FairQueue, Waiting
from ias.gateway.routing.loads import Place
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
    queue.charge("large", 150.0, 0.0, 400)
    queue.charge("small", 100.0, 0.0, 100)
    assert queue.share(0.0) == ({"large"}, 150.0, 100.0)


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


def test_a_newcomer_begins_at_as_many_backends_as_its_weight_gives_it() -> None:
    made = router(*(backend(f"b{n}") for n in range(8)), states={f"b{n}": ready() for n in range(8)})

    def begin(org: str, count: int, weight: int = 100) -> list[Place]:
        places = []
        for n in range(count):
            ask = prompt(f"{org} {n} " * 100, org, weight=weight)
            found = made.ask(ask)
            if isinstance(found, Place):
                made.queue.charge(org, ask.work, 0.0, weight, found)
                places.append(found)
        return places

    assert len(begin("here", 6)) == 6, "nobody else is here"
    made.look_at_shares(0.1)
    first = begin("new", 8)
    assert len(first) == 4, "half of eight"
    assert len(begin("heavy", 8, weight=300)) == 6
    for place_ in first:
        place_.begin()
    assert len(begin("new", 8)) == 4
    made.look_at_shares(2.0)
    assert not made.queue.newcomers


def test_while_one_org_floods_a_backend_is_kept_free_for_those_who_take_less() -> None:
    made = router(*(backend(f"b{n}") for n in range(4)), states={f"b{n}": ready() for n in range(4)})
    for n in range(40):
        for org, count in (("flood", 20), ("modest", 1)):
            made.queue.charge(org, 1000.0 * count, n / 10)
    for n in range(100):
        made.queue.push(Waiting(prompt(f"{n} " * 2000, "flood"), None, 4.0))
    made.look_at_shares(4.0)
    assert not made._kept, "nobody has waited for long"
    found = list(made.next_placed(4.4))
    placed = [one.load.backend_id for _, one in found]
    assert 0 < len(set(placed)) < 4
    told = json.loads(made.explain(found[0][0].ask))
    assert {name for name, why in told.items() if why == "kept_free"} == made._kept
    assert place(made, prompt("hello", "modest")).load.backend_id not in placed

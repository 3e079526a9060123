from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ias.gateway.routing.model_router import PENDING_TOKENS_MAX, Verdict
from ias.gateway.routing.prefixes import PrefixTable, name_beginnings
from ias.gateway.routing.strategies import Ring
from tests.gateway.routing.world import backend, chosen, place, prompt, router

EIGHT = [backend(f"b{n}") for n in range(8)]


def test_a_prompt_returns_to_where_its_beginning_is_cached() -> None:
    made = router(*EIGHT)
    for system in range(20):
        text = f"system {system} " * 200
        homes = {chosen(made, prompt(text + f"question {n}")) for n in range(10)}
        assert len(homes) == 1


def test_stickiness_ends_when_the_queue_before_the_warm_backend_is_longer_than_its_cache_saves() -> None:
    made = router(*EIGHT)
    text = "a long system prompt " * 60
    home = chosen(made, prompt(text))
    seen = [place(made, prompt(text + str(n))).load.backend_id for n in range(12)]
    assert seen[0] == home
    assert len(set(seen)) > 1


def test_to_wait_for_a_warm_backend_beats_computing_a_long_prompt_elsewhere() -> None:
    made = router(*EIGHT)
    text = "a very long system prompt " * 1600
    home = place(made, prompt(text))
    assert home.load.pending_tokens > PENDING_TOKENS_MAX
    assert made.ask(prompt(text + "?")) is Verdict.BUSY
    home.begin()
    assert chosen(made, prompt(text + "?")) == home.load.backend_id


def test_another_tenants_prompt_is_another_prompt() -> None:
    body = b"x" * 10_000
    assert not set(name_beginnings(body, 1)) & set(name_beginnings(body, 2))


def test_gateways_that_know_nothing_of_one_another_choose_alike() -> None:
    texts = [f"system {n} " * 300 for n in range(50)]
    homes = [[chosen(router(*EIGHT), prompt(text)) for text in texts] for _ in range(2)]
    assert homes[0] == homes[1]
    assert len(set(homes[0])) == 8


def test_a_cache_that_was_away_is_not_taken_for_warm() -> None:
    made = router(*EIGHT)
    text = "system prompt " * 200
    home = place(made, prompt(text))
    home.release()
    made.loads[home.load.backend_id].forget_cache()
    assert made.table.match(prompt(text).names).get(home.load.cache) is None


def test_the_table_of_beginnings_is_bounded() -> None:
    made = router(*EIGHT)
    made.table = PrefixTable(names_max=100)
    for n in range(1000):
        chosen(made, prompt(f"{n} " * 500))
    assert len(made.table) <= 110


@given(st.lists(st.text(min_size=1), min_size=2, max_size=20, unique=True), st.integers(0, 2**32 - 1))
def test_a_hash_changes_hands_only_with_its_owner(names: list[str], value: int) -> None:
    owner = Ring(names).owner(value)
    assert Ring(names).owners(value)[0] == owner
    rest = [name for name in names if name != owner]
    assert Ring(rest).owner(value) == Ring(names).owners(value)[1]
    assert Ring([*rest, owner]).owner(value) == owner


def test_the_canaries_share_is_exact() -> None:
    made = router(backend("a"), backend("b"), backend("c", group="canary"), canary_percent=7)
    seen = Counter(chosen(made, prompt(f"hello {n}")) == "c" for n in range(1000))
    assert seen[True] == 70


def test_a_session_stays_with_its_group_and_sessions_are_spread_by_the_share() -> None:
    made = router(backend("a"), backend("c", group="canary"), canary_percent=30)
    groups = {}
    for session in range(1000):
        seen = {chosen(made, prompt("x", session=session * 7919)) for _ in range(3)}
        assert len(seen) == 1
        groups[session] = seen.pop()
    assert 250 < sum(name == "c" for name in groups.values()) < 350


def test_where_the_canary_is_away_the_stable_group_serves_and_the_other_way_round() -> None:
    made = router(backend("a", enabled=False), backend("c", group="canary"), canary_percent=0)
    assert chosen(made, prompt("x")) == "c"
    made = router(backend("a"), backend("c", group="canary", draining=True), canary_percent=100)
    assert chosen(made, prompt("x")) == "a"


def test_a_sticky_session_stays_with_its_backend_while_that_can_serve() -> None:
    made = router(*EIGHT, is_sticky=True)
    homes = {session: chosen(made, prompt(f"{session}", session=session)) for session in range(0, 2**32, 2**26)}
    assert len(set(homes.values())) == 8
    for session, home in homes.items():
        assert {chosen(made, prompt(f"{n}", session=session)) for n in range(5)} == {home}
    gone = backend("b0", draining=True)
    made = router(gone, *EIGHT[1:], is_sticky=True)
    for session, home in homes.items():
        now = chosen(made, prompt("x", session=session))
        assert now != "b0"
        assert home in ("b0", now)


def test_least_tokens_goes_by_tokens_and_weights() -> None:
    made = router(backend("small"), backend("large", weight=3), strategy="least_tokens")
    for _ in range(40):
        place(made, prompt("x", output_tokens=10, is_streamed=False))
    assert 28 <= made.loads["large"].requests <= 31


def test_least_tokens_draws_among_those_that_have_as_few() -> None:
    made = router(*EIGHT, strategy="least_tokens")
    seen = Counter(chosen(made, prompt("x")) for _ in range(800))
    assert len(seen) == 8
    assert max(seen.values()) < 200


def test_weighted_goes_by_lot_and_priority_by_order() -> None:
    made = router(backend("small"), backend("large", weight=3), strategy="weighted")
    seen = Counter(chosen(made, prompt("x")) for _ in range(4000))
    assert 2850 < seen["large"] < 3150
    made = router(backend("b"), backend("a", concurrency_max=1), strategy="priority")
    assert [place(made, prompt("x")).load.backend_id for _ in range(3)] == ["a", "b", "b"]

"""The scripts by themselves: every ceiling or none, exact, and nothing left behind whatever happens to a request."""

import struct
from collections.abc import Iterator
from typing import Any, cast

import msgspec
import pytest
import redis

from ias.contracts import redis_keys
from ias.contracts.spending import Budget, SpendingPolicy, Window
from tests.gateway.admission_scripts import LIFETIME_S, Admitted, Denied, Scripts, raised
from tests.gateway.platform import ORG, budget, limit

RPM, TPM = limit("requests_per_minute", 3), limit("tokens_per_minute", 600)
RPD, ATONCE = limit("requests_per_day", 2), limit("concurrency", 2)


@pytest.fixture
def client(redis_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def scripts(client: "redis.Redis") -> Scripts:
    return Scripts(client)


def admitted(answer: Admitted | Denied) -> Admitted:
    assert isinstance(answer, Admitted), answer
    return answer


def denied(answer: Admitted | Denied) -> Denied:
    assert isinstance(answer, Denied), answer
    return answer


# ------------------------------------------------------------------ budgets


def test_settling_twice_counts_once(scripts: Scripts) -> None:
    total = budget(100)
    assert admitted(scripts.reserve("r1", amount=70, budgets=(total,))).left == 30
    assert scripts.reserve("r2", amount=31, budgets=(total,)) == Denied(1, 30, -1, [])
    assert scripts.settle("r1", cost=20)
    assert not scripts.settle("r1", cost=20)
    assert scripts.counter(total) == (20, 0)


def test_an_expired_reservation_counts_as_spent_until_its_settlement_arrives(scripts: Scripts) -> None:
    total = budget(100)
    scripts.reserve("dead", amount=70, budgets=(total,))
    scripts.advance(LIFETIME_S + 1)
    assert scripts.counter(total) == (0, 70)
    assert scripts.sweep() == 1
    assert scripts.sweep() == 0
    assert scripts.counter(total) == (70, 0)
    assert scripts.settle("dead", cost=5)
    assert not scripts.settle("dead", cost=5)
    assert scripts.counter(total) == (5, 0)


def test_amounts_are_exact_up_to_the_largest(scripts: Scripts) -> None:
    largest = 9_000_000 * 10**9
    total = budget(largest)
    assert admitted(scripts.reserve("r1", amount=largest - 1, budgets=(total,))).left == 1
    assert denied(scripts.reserve("r2", amount=2, budgets=(total,))).left == 1
    assert admitted(scripts.reserve("r3", amount=1, budgets=(total,))).left == 0
    scripts.settle("r1", cost=largest - 3)
    assert scripts.counter(total) == (largest - 3, 1)


def test_a_counter_of_a_window_does_not_stay_for_ever(scripts: Scripts, client: "redis.Redis") -> None:
    total = budget(100)
    scripts.reserve("r1", amount=1, budgets=(total,), time_to_live_s=1000)
    assert 0 < cast("int", client.ttl(scripts.counter_key(total))) <= 1000


def test_what_costs_nothing_is_let_past_an_exhausted_budget(scripts: Scripts) -> None:
    spent = budget(0)
    admitted(scripts.reserve("free", budgets=(spent,), limits=(RPM,)))
    assert scripts.settle("free")
    assert scripts.counter(spent) == (0, 0)


# ------------------------------------------------------------------ rolling budgets

HOUR_S = 3600


def rolling(limit_nano_usd: int, window: Window = "rolling_24h", **more: Any) -> Budget:
    return msgspec.structs.replace(budget(limit_nano_usd, name=window), window=window, **more)


def test_what_a_rolling_budget_spent_counts_for_its_length_and_is_then_forgotten_part_by_part(scripts: Scripts) -> None:
    day = rolling(100)
    scripts.now_ms = scripts.now_ms // 3_600_000 * 3_600_000 + 600_000  # ten minutes past the hour
    admitted(scripts.reserve("r1", amount=60, budgets=(day,)))
    scripts.settle("r1", cost=60)
    scripts.advance(HOUR_S)
    admitted(scripts.reserve("r2", amount=40, budgets=(day,)))
    scripts.settle("r2", cost=40)
    refusal = denied(scripts.reserve("r3", amount=1, budgets=(day,)))
    assert (refusal.left, refusal.wait_ms) == (0, 23 * HOUR_S * 1000 + 50 * 60_000)
    assert denied(scripts.reserve("r3", amount=61, budgets=(day,))).wait_ms == refusal.wait_ms + HOUR_S * 1000
    assert denied(scripts.reserve("r3", amount=101, budgets=(day,))).wait_ms == -1
    scripts.advance(
        23 * HOUR_S + 50 * 60 - 1
    )  # the first is 24 hours and 49:59 old: its hour ended less than 24 hours ago
    assert denied(scripts.reserve("r3", amount=1, budgets=(day,))).wait_ms == 1000
    scripts.advance(1)
    assert admitted(scripts.reserve("r3", amount=60, budgets=(day,))).left == 0


def test_a_request_counts_where_it_was_admitted_however_late_it_is_settled(scripts: Scripts) -> None:
    day = rolling(100)
    admitted(scripts.reserve("late", amount=80, budgets=(day,)))
    counter = scripts.counter_key(day)
    scripts.advance(2 * HOUR_S)
    assert scripts.counter_key(day) != counter
    assert denied(scripts.reserve("next", amount=21, budgets=(day,))).left == 20
    scripts.settle("late", cost=10)
    assert admitted(scripts.reserve("next", amount=90, budgets=(day,))).left == 0
    assert scripts.counter(day) == (0, 90)


def test_an_hour_is_refused_by_whichever_window_has_less_left_and_counts_in_none(scripts: Scripts) -> None:
    month, week, day = budget(1000, name="total"), rolling(100, "rolling_7d"), rolling(50)
    for n in range(4):
        admitted(scripts.reserve(f"r{n}", amount=25, budgets=(month, week, day)))
        scripts.settle(f"r{n}", cost=25)
        scripts.advance(13 * HOUR_S)
    refusal = denied(scripts.reserve("more", amount=1, budgets=(month, week, day), limits=(RPM,)))
    assert (refusal.index, refusal.left, [left for left, _ in refusal.rates]) == (2, 0, [3])
    assert [scripts.counter(each)[1] for each in (month, week, day)] == [0, 0, 0]
    scripts.advance(6 * 24 * HOUR_S)
    assert admitted(scripts.reserve("more", amount=1, budgets=(month, week, day), limits=(RPM,))).left == 49


def test_who_comes_late_is_not_let_past_those_who_came_in_time(scripts: Scripts) -> None:
    """Its body took until after the hour, when another had spent all of the budget in the next part."""
    day = rolling(100)
    scripts.now_ms = scripts.now_ms // 3_600_000 * 3_600_000 + 1_000
    admitted(scripts.reserve("r1", amount=100, budgets=(day,)))
    scripts.settle("r1", cost=100)
    refusal = denied(scripts.reserve("late", amount=1, budgets=(day,), late_s=2))
    assert (refusal.left, refusal.wait_ms) == (0, 25 * HOUR_S * 1000 - 1_000)


def test_a_soft_rolling_budget_refuses_until_enough_of_what_it_spent_is_forgotten(scripts: Scripts) -> None:
    soft = rolling(50, mode="soft")
    for request in ("r1", "r2"):
        admitted(scripts.reserve(request, amount=100, budgets=(soft,)))  # none of it is spent yet
    scripts.settle("r1", cost=30)
    scripts.settle("r2", cost=20)
    refusal = denied(scripts.reserve("r3", amount=1, budgets=(soft,)))
    assert (refusal.left, 24 * HOUR_S * 1000 <= refusal.wait_ms <= 25 * HOUR_S * 1000) == (0, True)
    scripts.now_ms += refusal.wait_ms
    admitted(scripts.reserve("r3", amount=1, budgets=(soft,)))


def test_who_holds_a_part_of_a_rolling_budget_is_admitted_again(scripts: Scripts) -> None:
    day = rolling(100)
    for _ in range(2):
        admitted(scripts.reserve("r1", amount=100, budgets=(day,), limits=(RPM,)))
    assert scripts.counter(day) == (0, 100)


# ------------------------------------------------------------------ rate limits


def test_a_minutes_requests_may_come_at_once_and_then_at_their_rate(scripts: Scripts) -> None:
    left = [admitted(scripts.reserve(f"r{i}", limits=(RPM,))).rates for i in range(3)]
    assert left == [[(2, 20_000)], [(1, 40_000)], [(0, 60_000)]]
    assert denied(scripts.reserve("r3", limits=(RPM,))).wait_ms == 20_000
    scripts.advance(19.999)
    assert denied(scripts.reserve("r3", limits=(RPM,))).wait_ms == 1
    scripts.advance(0.001)
    assert admitted(scripts.reserve("r3", limits=(RPM,))).rates == [(0, 60_000)]


def test_what_one_ceiling_refuses_counts_in_none(scripts: Scripts) -> None:
    wide = (limit("requests_per_minute", 100), limit("tokens_per_minute", 10_000), limit("concurrency", 50))
    tight = limit("requests_per_day", 1, name="tight")
    total = budget(100)
    admitted(scripts.reserve("r1", amount=1, tokens=10, budgets=(total,), limits=(*wide, tight)))
    for request in ("r2", "r3"):
        refusal = denied(scripts.reserve(request, amount=1, tokens=10, budgets=(total,), limits=(*wide, tight)))
        assert refusal.index == 5
        assert [left for left, _ in refusal.rates] == [99, 9_990, 49, 0]
    assert scripts.counter(total) == (0, 1)
    poor = budget(1, name="poor")
    assert denied(scripts.reserve("r4", amount=2, tokens=10, budgets=(poor,), limits=wide)).index == 1
    assert [left for left, _ in admitted(scripts.reserve("r5", limits=wide)).rates] == [98, 9_990, 48]


def test_the_longest_wait_is_told_since_a_shorter_one_would_not_help(scripts: Scripts) -> None:
    limits = (limit("requests_per_minute", 1), limit("tokens_per_minute", 60), limit("concurrency", 1))
    admitted(scripts.reserve("r1", tokens=60, limits=limits))
    scripts.advance(1)
    refusal = denied(scripts.reserve("r2", tokens=30, limits=limits))
    assert (refusal.index, refusal.wait_ms) == (1, 59_000)
    refusal = denied(scripts.reserve("r2", tokens=61, limits=limits))
    assert (refusal.index, refusal.wait_ms) == (2, -1)


def test_tokens_are_corrected_by_what_was_used(scripts: Scripts) -> None:
    admitted(scripts.reserve("less", tokens=500, limits=(TPM,)))
    assert denied(scripts.reserve("next", tokens=200, limits=(TPM,))).wait_ms == 10_000
    scripts.settle("less", tokens=100)
    assert not scripts.settle("less", tokens=100)
    assert admitted(scripts.reserve("more", tokens=200, limits=(TPM,))).rates == [(300, 30_000)]
    scripts.settle("more", tokens=1_100)
    assert denied(scripts.reserve("next", tokens=1, limits=(TPM,))).wait_ms == 60_100
    scripts.advance(60.1)
    assert admitted(scripts.reserve("next", tokens=1, limits=(TPM,))).rates == [(0, 60_000)]


def test_what_was_not_served_gives_its_tokens_and_its_place_back(scripts: Scripts) -> None:
    limits = (TPM, limit("concurrency", 1))
    admitted(scripts.reserve("failed", tokens=600, limits=limits))
    scripts.settle("failed")
    assert admitted(scripts.reserve("next", tokens=600, limits=limits)).rates == [(0, 60_000), (0, 0)]


def test_a_days_requests_come_back_at_midnight(scripts: Scripts) -> None:
    scripts.now_ms = 1_800_000_000_000 // 86_400_000 * 86_400_000 + 86_400_000 - 2_000
    for i in range(2):
        admitted(scripts.reserve(f"r{i}", limits=(RPD,)))
    scripts.advance(1)
    assert denied(scripts.reserve("r2", limits=(RPD,))).wait_ms == 1_000
    scripts.advance(1)
    assert admitted(scripts.reserve("r2", limits=(RPD,))).rates == [(1, 86_400_000)]


def test_a_place_is_free_again_when_its_request_is_over_or_its_gateway_dead(scripts: Scripts) -> None:
    for request in ("served", "crashed"):
        admitted(scripts.reserve(request, limits=(ATONCE,)))
    assert denied(scripts.reserve("third", limits=(ATONCE,))).wait_ms == 0
    scripts.settle("served")
    admitted(scripts.reserve("third", limits=(ATONCE,)))
    denied(scripts.reserve("fourth", limits=(ATONCE,)))
    scripts.advance(LIFETIME_S)
    assert admitted(scripts.reserve("fourth", limits=(ATONCE,))).rates == [(1, 0)]


def test_a_settlement_that_comes_after_the_lease_ran_out_changes_nothing(scripts: Scripts) -> None:
    limits = (TPM, ATONCE)
    admitted(scripts.reserve("late", tokens=600, limits=limits))
    scripts.advance(LIFETIME_S + 1)
    admitted(scripts.reserve("next", tokens=600, limits=limits))
    assert scripts.settle("late", tokens=10_000)
    assert admitted(scripts.reserve("last", limits=limits)).rates[0] == (0, 60_000)


@pytest.mark.parametrize(("before", "after", "left"), [(100, 200, 150), (100, 60, 10), (100, 20, 0)])
def test_a_changed_limit_keeps_what_was_used(scripts: Scripts, before: int, after: int, left: int) -> None:
    bucket = limit("tokens_per_minute", before)
    admitted(scripts.reserve("r1", tokens=50, limits=(bucket,)))
    answer = scripts.reserve("r2", tokens=0, limits=(raised(bucket, after),))
    assert answer.rates[0][0] == left


def test_a_clock_that_is_put_back_neither_drains_nor_sticks(scripts: Scripts) -> None:
    for i in range(3):
        admitted(scripts.reserve(f"r{i}", limits=(RPM,)))
    scripts.advance(-3600)
    scripts.settle("r0")
    assert denied(scripts.reserve("r3", limits=(RPM,))).wait_ms == 20_000


def test_the_largest_limits_are_exact(scripts: Scripts) -> None:
    most = (limit("requests_per_day", 100_000_000), limit("tokens_per_minute", 10_000_000_000))
    answer = admitted(scripts.reserve("r1", tokens=9_999_999_999, limits=most))
    assert [left for left, _ in answer.rates] == [99_999_999, 1]


def test_buckets_do_not_stay_for_ever(scripts: Scripts, client: "redis.Redis") -> None:
    limits = (RPM, TPM, RPD, ATONCE)
    admitted(scripts.reserve("r1", tokens=600, limits=limits))
    for each in limits:
        assert 0 < cast("int", client.ttl(redis_keys.rate_limit(ORG, each.id))) <= 2 * 86_400


def test_without_anything_to_settle_nothing_is_kept_of_a_request(scripts: Scripts, client: "redis.Redis") -> None:
    admitted(scripts.reserve("r1", limits=(RPM, RPD)))
    assert client.exists(redis_keys.reservation(ORG, "r1"), redis_keys.reservation_deadlines(ORG)) == 0


def test_the_scripts_take_the_servers_time_when_given_none(scripts: Scripts, client: "redis.Redis") -> None:
    seconds, _ = client.time()
    scripts.now_ms = cast("int", "")
    admitted(scripts.reserve("r1", tokens=1, limits=(TPM,)))
    level, at = struct.unpack("<dd", cast("bytes", client.get(redis_keys.rate_limit(ORG, TPM.id))))
    assert level == 60_000
    assert seconds * 1000 <= at < (seconds + 60) * 1000


def test_policies_of_before_rate_limits_are_still_read() -> None:
    old = b'{"version":1,"org_id":"o","budgets":[]}'
    assert msgspec.json.decode(old, type=SpendingPolicy).rate_limits == ()

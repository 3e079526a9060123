"""A plan is good until the first of its windows or raises ends, each at its own zone's midnight."""

import math
from datetime import UTC, datetime

import msgspec

from ias.contracts.api_keys import KeyRecord
from ias.contracts.spending import Budget, BudgetRaise, SpendingPolicy
from ias.gateway.admission_plan import AdmissionPlan
from tests.gateway.platform import KEY_ID, ORG, PROJECT, USER, budget

KEY = KeyRecord(version=1, key_id=KEY_ID, org_id=ORG, project_id=PROJECT, user_id=USER)
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()


def plan(*budgets: Budget, at: float = NOON) -> AdmissionPlan:
    return AdmissionPlan.build(SpendingPolicy(version=1, org_id=ORG, budgets=budgets), KEY, "m", at)


def command(*budgets: Budget, at: float = NOON) -> bytes:
    return plan(*budgets, at=at).call.fill(b"req_" + b"0" * 32, 1, 0, 60)


def of(window: str, zone: str, **more: object) -> Budget:
    return msgspec.structs.replace(budget(1000), window=window, time_zone=zone, **more)


def test_it_ends_with_the_first_window_to_end() -> None:
    ends = {
        zone: datetime.fromtimestamp(plan(of("month", "UTC"), of("day", zone)).valid_until, UTC).isoformat()
        for zone in ("UTC", "Asia/Kolkata", "America/New_York")
    }
    assert ends == {
        "UTC": "2026-11-24T00:00:00+00:00",
        "Asia/Kolkata": "2026-11-23T18:30:00+00:00",
        "America/New_York": "2026-11-24T05:00:00+00:00",
    }
    assert plan(of("total", "UTC")).valid_until == math.inf


def test_of_a_rolling_budget_every_part_is_asked_and_the_plan_ends_with_the_newest() -> None:
    day, week = of("rolling_24h", "UTC"), of("rolling_7d", "UTC")
    both = plan(of("month", "UTC"), day, week)
    assert [counter.rsplit(":", 1)[1] for counter in both.counters] == ["2026-11", "2026-11-23T12", "2026-11-23T12"]
    assert both.valid_until == NOON + 3600
    assert plan(week).valid_until == NOON + 6 * 3600
    told = command(of("month", "UTC"), day, week)
    assert told.count(b":2026-11-22T12\r\n") == 2
    assert told.count(b":2026-11-22T11\r\n") == 0
    assert told.count(b":2026-11-16T12\r\n") == 1
    assert (told.count(b":2026-11-23T13\r\n"), told.count(b":2026-11-23T18\r\n")) == (1, 1)
    ends = [round((NOON + hours * 3600) * 1000) for hours in (1, 6)]
    assert f"\r\n3 29 {ends[1]} 21600000,2 25 {ends[0]} 3600000\r\n".encode() in told


def test_without_rolling_budgets_nothing_more_is_told() -> None:
    assert b"\r\n1\r\n$1\r\n1\r\n" in command(of("total", "UTC"))
    assert command(of("total", "UTC")).endswith(b"\r\n$4\r\n1000\r\n$1\r\n0\r\n")


def test_the_counter_is_that_of_the_zones_window() -> None:
    assert b":2026-11-24\r\n" in command(of("day", "Pacific/Auckland"))
    assert b":2026-11-23\r\n" in command(of("day", "UTC"))
    assert b":2026-W48\r\n" in command(of("week", "Pacific/Auckland"))


def test_a_raise_counts_until_its_end_and_the_plan_is_worked_out_anew_then() -> None:
    raised = of("total", "UTC", raises=(BudgetRaise(amount_nano_usd=500, expires_at=int(NOON) + 60),))
    assert b"$4\r\n1500\r\n" in command(raised)
    assert plan(raised).valid_until == NOON + 60
    assert b"$4\r\n1000\r\n" in command(raised, at=NOON + 60)
    assert plan(raised, at=NOON + 60).valid_until == math.inf


def test_a_budget_as_it_was_published_before_there_were_zones_and_raises_can_be_read() -> None:
    old = {
        "id": "b",
        "scope_kind": "org",
        "scope_id": ORG,
        "window": "day",
        "limit_nano_usd": 5,
        "mode": "hard",
    }
    assert msgspec.json.decode(msgspec.json.encode(old), type=Budget).time_zone == "UTC"

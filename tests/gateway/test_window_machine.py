"""Whatever happens around the boundaries of windows, in whatever zone, with raises that come and end: none holds more than it may.

Each request is counted in the window that it was admitted in, whenever it is settled, and the limit that holds is the one with the
raises in force at the moment of admission. A rolling budget besides never lets more than its limit be admitted in any stretch of
time that is as long as it.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import ClassVar

import msgspec
import pytest
import redis
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ias.contracts import redis_keys
from ias.contracts.spending import Budget, BudgetRaise, Window, window_id, window_parts
from tests.gateway.admission_scripts import LIFETIME_S, Admitted, Denied, Scripts
from tests.gateway.platform import ORG, budget

LIMIT = 1000
DAY_S = 86_400
LENGTHS_S: dict[Window, int] = {"rolling_24h": DAY_S, "rolling_7d": 7 * DAY_S, "rolling_30d": 30 * DAY_S}
PARTS_S: dict[Window, int] = {"rolling_24h": 3600, "rolling_7d": 6 * 3600, "rolling_30d": DAY_S}
FIRST_S, LAST_S = 1_767_225_600, 1_830_297_600
"""The years 2026 and 2027."""


@dataclass
class Request:
    """A request that was admitted. What it holds, or cost, never grows."""

    amount: int
    at_s: float
    windows: dict[str, str]
    """Where it is counted, by budget."""
    expires_ms: int
    is_swept: bool = False
    is_settled: bool = False

    @property
    def is_spent(self) -> bool:
        return self.is_swept or self.is_settled


@dataclass
class Model:
    """Every request there ever was; windows are worked out from these."""

    requests: dict[str, Request] = field(default_factory=dict)

    def open(self) -> list[str]:
        return sorted(name for name, request in self.requests.items() if not request.is_settled)

    def count(self, each: Budget, now_s: float) -> int:
        """What a budget has to count at a moment."""
        requests = self.requests.values()
        if each.window not in LENGTHS_S:
            window = window_id(each.window, now_s, each.time_zone)
            return sum(request.amount for request in requests if request.windows[each.id] == window)
        length_s, part_s = LENGTHS_S[each.window], PARTS_S[each.window]
        first = now_s // part_s - length_s // part_s
        return sum(request.amount for request in requests if request.at_s // part_s >= first)

    def most_in_a_span(self, each: Budget, at_s: float) -> int:
        """What was admitted at most in any 24 hours (7, 30 days) that a moment is in, to the millisecond."""
        length_s = LENGTHS_S[each.window]
        moments = sorted((request.at_s, request.amount) for request in self.requests.values())
        starts = [start for start, _ in moments if at_s - length_s <= start <= at_s]
        return max(sum(amount for moment, amount in moments if start <= moment <= start + length_s) for start in starts)


class Windows(RuleBasedStateMachine):
    """Requests of one org under hard budgets, over days and months."""

    client: ClassVar["redis.Redis"]

    @initialize(
        windows=st.lists(
            st.sampled_from(["day", "week", "month", "rolling_24h", "rolling_7d", "rolling_30d"]),
            min_size=1,
            max_size=3,
            unique=True,
        ),
        zone=st.sampled_from(["UTC", "Asia/Kolkata", "Europe/Berlin", "America/Havana", "Pacific/Auckland"]),
        start_s=st.integers(FIRST_S, LAST_S),
    )
    def begin(self, windows: list[Window], zone: str, start_s: int) -> None:
        self.client.flushdb()
        self.scripts = Scripts(self.client)
        self.scripts.now_ms = start_s * 1000
        self.budgets = [
            msgspec.structs.replace(budget(LIMIT + 100 * n, name=window), window=window, time_zone=zone)
            for n, window in enumerate(windows)
        ]
        self.model = Model()
        self.names = 0

    @property
    def now(self) -> float:
        return self.scripts.now_ms / 1000

    @rule(amount=st.integers(1, 700), late_s=st.sampled_from([0, 0, 0.002, 3, 300, 3500]))
    def reserve(self, amount: int, late_s: float) -> None:
        """It may come late: its body took long, or its gateway's clock is slow."""
        self.names += 1
        name, model, budgets = f"r{self.names:04}", self.model, tuple(self.budgets)
        at_s = self.now - late_s
        limits = {
            each.id: each.limit_nano_usd + sum(one.amount_nano_usd for one in each.raises if one.expires_at > at_s)
            for each in budgets
        }
        left = {each.id: limits[each.id] - model.count(each, at_s) for each in budgets}
        answer = self.scripts.reserve(name, amount=amount, budgets=budgets, late_s=late_s)
        assert isinstance(answer, Admitted) == all(amount <= room for room in left.values()), (answer, left)
        if isinstance(answer, Denied):
            assert left[budgets[answer.index - 1].id] == min(left.values()) == answer.left
            return
        windows = {each.id: window_id(each.window, at_s, each.time_zone) for each in budgets}
        expires_ms = (self.scripts.now_ms // 1000 + LIFETIME_S) * 1000
        model.requests[name] = Request(amount, at_s, windows, expires_ms)
        for each in budgets:
            assert each.window not in LENGTHS_S or model.most_in_a_span(each, at_s) <= limits[each.id]

    @precondition(lambda self: self.model.open())
    @rule(data=st.data(), share=st.floats(0, 1))
    def settle(self, data: st.DataObject, share: float) -> None:
        name = data.draw(st.sampled_from(self.model.open()))
        request = self.model.requests[name]
        cost = int(request.amount * share)
        assert self.scripts.settle(name, cost=cost)
        request.amount, request.is_settled = cost, True

    @rule()
    def sweep(self) -> None:
        self.scripts.sweep()
        for request in self.model.requests.values():
            if not request.is_settled and request.expires_ms <= self.scripts.now_ms:
                request.is_swept = True

    @rule(data=st.data(), amount=st.integers(1, 500), seconds=st.sampled_from([1, 30, 3600, 200_000]))
    def grant_a_raise(self, data: st.DataObject, amount: int, seconds: int) -> None:
        more = BudgetRaise(amount_nano_usd=amount, expires_at=int(self.now) + seconds)
        n = data.draw(st.integers(0, len(self.budgets) - 1))
        self.budgets[n] = msgspec.structs.replace(self.budgets[n], raises=(*self.budgets[n].raises, more))

    @rule(seconds=st.sampled_from([0.5, 10, 59, 3600, 40_000, 90_000, 400_000]))
    def wait(self, seconds: float) -> None:
        self.scripts.advance(seconds)

    @rule(data=st.data(), before_s=st.sampled_from([0.001, 5]))
    def wait_for_the_boundary(self, data: st.DataObject, before_s: float) -> None:
        """To the last moment of a window, or of the newest part of one."""
        each = data.draw(st.sampled_from(self.budgets))
        end = window_parts(each.window, self.now, each.time_zone)[0].end
        assert end is not None
        self.scripts.now_ms = max(self.scripts.now_ms, int((end.timestamp() - before_s) * 1000))

    @precondition(lambda self: any(each.window in LENGTHS_S for each in self.budgets))
    @rule(data=st.data(), amount=st.integers(300, 1500))
    def wait_as_told(self, data: st.DataObject, amount: int) -> None:
        """A rolling budget says when it has room: then it has, and a millisecond earlier it has not."""
        each = data.draw(st.sampled_from([each for each in self.budgets if each.window in LENGTHS_S]))
        each = msgspec.structs.replace(each, raises=())
        answer = self.scripts.reserve("asking", amount=amount, budgets=(each,))
        if isinstance(answer, Admitted):
            self.scripts.settle("asking")
        elif answer.wait_ms == -1:
            assert amount > each.limit_nano_usd
        else:
            self.scripts.now_ms += answer.wait_ms - 1
            assert isinstance(self.scripts.reserve("asking", amount=amount, budgets=(each,)), Denied)
            self.scripts.now_ms += 1
            assert isinstance(self.scripts.reserve("asking", amount=amount, budgets=(each,)), Admitted)
            self.scripts.settle("asking")

    @invariant()
    def each_window_says_what_the_model_does(self) -> None:
        if not hasattr(self, "model"):
            return
        wanted: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for request in self.model.requests.values():
            for each, window in request.windows.items():
                key = redis_keys.budget_counter(ORG, each, window)
                wanted[key][0 if request.is_spent else 1] += request.amount
        for key, amounts in wanted.items():
            said = self.client.hmget(key, ["settled", "reserved"])
            assert [int(amount or 0) for amount in said] == amounts, key  # type: ignore[union-attr]

    def teardown(self) -> None:
        if hasattr(self, "model"):
            for name in self.model.open():
                assert self.scripts.settle(name)
            assert self.client.keys("*:reservation*") == []


@pytest.mark.slow
def test_no_window_of_any_zone_holds_more_than_it_may(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        machine = type("WindowsHere", (Windows,), {"client": client})
        run_state_machine_as_test(
            machine,
            settings=settings(max_examples=40, stateful_step_count=30, phases=(Phase.explicit, Phase.generate)),
        )

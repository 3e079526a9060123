"""Whatever happens around the boundaries of windows, in whatever zone, with raises that come and end: none holds more than it may.

Each request is counted in the window that it was admitted in, whenever it is settled, and the limit that holds is the one with the
raises in force at the moment of admission.
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
from ias.contracts.spending import BudgetRaise, Window, window_end, window_id
from tests.gateway.admission_scripts import LIFETIME_S, Admitted, Scripts
from tests.gateway.platform import ORG, budget

LIMIT = 1000


@dataclass
class Held:
    """A request that was admitted."""

    amount: int
    window: str
    expires_ms: int
    is_swept: bool = False


@dataclass
class Model:
    """What each window has to say."""

    settled: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    reserved: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    held: dict[str, Held] = field(default_factory=dict)


class Windows(RuleBasedStateMachine):
    """Requests of one org under one hard budget, over days and months."""

    client: ClassVar["redis.Redis"]

    @initialize(
        window=st.sampled_from(["day", "week", "month"]),
        zone=st.sampled_from(["UTC", "Asia/Kolkata", "Europe/Berlin", "America/Havana", "Pacific/Auckland"]),
        start_s=st.integers(1_767_225_600, 1_830_297_600),  # the years 2026 and 2027
    )
    def begin(self, window: Window, zone: str, start_s: int) -> None:
        self.client.flushdb()
        self.scripts = Scripts(self.client)
        self.scripts.now_ms = start_s * 1000
        self.budget = msgspec.structs.replace(budget(LIMIT, name="b"), window=window, time_zone=zone)
        self.model = Model()
        self.names = 0

    @property
    def now(self) -> float:
        return self.scripts.now_ms / 1000

    @property
    def window(self) -> str:
        return window_id(self.budget.window, self.now, self.budget.time_zone)

    @rule(amount=st.integers(1, 700))
    def reserve(self, amount: int) -> None:
        self.names += 1
        name, model, window = f"r{self.names:04}", self.model, self.window
        limit = LIMIT + sum(one.amount_nano_usd for one in self.budget.raises if one.expires_at > self.now)
        fits = model.settled[window] + model.reserved[window] + amount <= limit
        answer = self.scripts.reserve(name, amount=amount, budgets=(self.budget,))
        assert isinstance(answer, Admitted) == fits
        if fits:
            model.reserved[window] += amount
            expires_ms = (self.scripts.now_ms // 1000 + LIFETIME_S) * 1000
            model.held[name] = Held(amount, window, expires_ms)

    @precondition(lambda self: self.model.held)
    @rule(data=st.data(), share=st.floats(0, 1))
    def settle(self, data: st.DataObject, share: float) -> None:
        name = data.draw(st.sampled_from(sorted(self.model.held)))
        held = self.model.held.pop(name)
        cost = int(held.amount * share)
        assert self.scripts.settle(name, cost=cost)
        self.model.reserved[held.window] -= 0 if held.is_swept else held.amount
        self.model.settled[held.window] += cost - (held.amount if held.is_swept else 0)

    @rule()
    def sweep(self) -> None:
        self.scripts.sweep()
        for held in self.model.held.values():
            if not held.is_swept and held.expires_ms <= self.scripts.now_ms:
                held.is_swept = True
                self.model.reserved[held.window] -= held.amount
                self.model.settled[held.window] += held.amount

    @rule(amount=st.integers(1, 500), seconds=st.sampled_from([1, 30, 3600, 200_000]))
    def grant_a_raise(self, amount: int, seconds: int) -> None:
        more = BudgetRaise(amount_nano_usd=amount, expires_at=int(self.now) + seconds)
        self.budget = msgspec.structs.replace(self.budget, raises=(*self.budget.raises, more))

    @rule(seconds=st.sampled_from([0.5, 10, 59, 3600, 40_000, 90_000]))
    def wait(self, seconds: float) -> None:
        self.scripts.advance(seconds)

    @rule(before_s=st.sampled_from([0.001, 5]))
    def wait_for_the_boundary(self, before_s: float) -> None:
        """To the last moment of the window."""
        end = window_end(self.budget.window, self.now, self.budget.time_zone)
        assert end is not None
        self.scripts.now_ms = max(self.scripts.now_ms, int((end.timestamp() - before_s) * 1000))

    @invariant()
    def each_window_says_what_the_model_does(self) -> None:
        if not hasattr(self, "model"):
            return
        for window in self.model.settled.keys() | self.model.reserved.keys():
            key = redis_keys.budget_counter(ORG, self.budget.id, window)
            settled, reserved = self.client.hmget(key, ["settled", "reserved"])  # type: ignore[misc]
            said = (int(settled or 0), int(reserved or 0))
            assert said == (self.model.settled[window], self.model.reserved[window]), window

    def teardown(self) -> None:
        if hasattr(self, "model"):
            for name in list(self.model.held):
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

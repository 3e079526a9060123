"""Whatever is reserved, settled, repeated, left to expire or changed, in whatever order: the scripts do what a plain model does.

After every step each counter, bucket and lease in Redis is what the model says, no hard ceiling has let in more than it may, and
at the end nothing is left of any request.
"""

import struct
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, cast

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
from ias.contracts.spending import Budget, Metric, RateLimit
from tests.gateway.admission_scripts import LIFETIME_S, Admitted, Scripts, raised
from tests.gateway.platform import ORG, budget, limit

DAY_MS = 86_400_000
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
HARD, SOFT = budget(1000, name="hard"), budget(700, mode="soft", name="soft")
ALERT = budget(1, mode="alert", name="alert")
ROLLING = msgspec.structs.replace(budget(800, name="rolling"), window="rolling_24h")
ROLLING_SOFT = msgspec.structs.replace(budget(600, mode="soft", name="rolling_soft"), window="rolling_24h")
BUDGETS = (HARD, SOFT, ALERT, ROLLING, ROLLING_SOFT)


def part_of(each: Budget, now_ms: int) -> int:
    """Which of its parts a moment falls in: hours, where its window rolls."""
    return now_ms // HOUR_MS if each.window == "rolling_24h" else 0


@dataclass
class Bucket:
    """A rate limit as one would write it down: what is in it, in units, as a fraction of the limit's period."""

    limit: RateLimit
    level: int = 0
    """Units times the milliseconds of a minute; requests of a day times one."""
    at_ms: int = 0

    def now(self, now_ms: int, most: int) -> int:
        if self.limit.metric == "requests_per_day":
            return self.level if self.at_ms // DAY_MS == now_ms // DAY_MS else 0
        return max(0, self.level - max(0, now_ms - self.at_ms) * most)

    @property
    def unit(self) -> int:
        return 1 if self.limit.metric == "requests_per_day" else MINUTE_MS

    def add(self, units: int, now_ms: int, most: int) -> None:
        self.level = max(0, self.now(now_ms, most) + units * self.unit)
        self.at_ms = now_ms


@dataclass
class Held:
    """What the model knows of an admitted request."""

    amount: int
    tokens: int
    expires_ms: int
    budgets: dict[str, int]
    """In which part of each it is counted."""
    limits: dict[str, int]
    """The limit of each metric as it was then."""
    is_swept: bool = False


@dataclass
class Model:
    """All ceilings and requests of the org."""

    settled: dict[tuple[str, int], int] = field(default_factory=lambda: defaultdict(int))
    reserved: dict[tuple[str, int], int] = field(default_factory=lambda: defaultdict(int))
    """By budget and part."""
    buckets: dict[str, Bucket] = field(default_factory=dict)
    held: dict[str, Held] = field(default_factory=dict)

    def spent(self, each: Budget, now_ms: int) -> int:
        first = part_of(each, now_ms) - 24
        return sum(amount for (name, part), amount in self.settled.items() if name == each.id and part >= first)

    def held_of(self, each: Budget, now_ms: int) -> int:
        first = part_of(each, now_ms) - 24
        return sum(amount for (name, part), amount in self.reserved.items() if name == each.id and part >= first)

    def leases(self, now_ms: int) -> int:
        return sum("concurrency" in held.limits and held.expires_ms > now_ms for held in self.held.values())

    def sweep(self, now_ms: int) -> None:
        for held in self.held.values():
            if held.is_swept or held.expires_ms > now_ms:
                continue
            held.is_swept = True
            for each in held.budgets.items():
                self.reserved[each] -= held.amount
                self.settled[each] += held.amount

    def settle(self, name: str, cost: int, tokens: int, now_ms: int) -> None:
        held = self.held.pop(name)
        for each in held.budgets.items():
            self.reserved[each] -= 0 if held.is_swept else held.amount
            self.settled[each] += cost - (held.amount if held.is_swept else 0)
        if held.expires_ms > now_ms and "tokens_per_minute" in held.limits and tokens != held.tokens:
            most = held.limits["tokens_per_minute"]
            self.buckets["tokens_per_minute"].add(tokens - held.tokens, now_ms, most)


class Admissions(RuleBasedStateMachine):
    """One org's requests under budgets of each kind and up to four limits."""

    client: "redis.Redis"

    @initialize(
        metrics=st.sets(
            st.sampled_from(["requests_per_minute", "tokens_per_minute", "requests_per_day", "concurrency"])
        ),
        budgets=st.sampled_from(
            [(), (HARD,), (SOFT,), (ALERT,), (ROLLING,), (ROLLING_SOFT,), (ROLLING, HARD, ROLLING_SOFT), BUDGETS]
        ),
        most=st.integers(1, 12),
    )
    def begin(self, metrics: set[Metric], budgets: tuple[Budget, ...], most: int) -> None:
        self.client.flushdb()
        self.scripts = Scripts(self.client)
        self.scripts.now_ms += 123_456
        self.kinds = budgets
        self.hard_limit = HARD.limit_nano_usd
        self.model = Model()
        for metric in sorted(metrics):
            bucket = limit(metric, most * 100 if metric == "tokens_per_minute" else most)
            self.model.buckets[metric] = Bucket(bucket)
        self.names = 0
        self.over: set[str] = set()

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """As gateways know them now."""
        hard = msgspec.structs.replace(HARD, limit_nano_usd=self.hard_limit)
        return tuple(hard if each is HARD else each for each in self.kinds)

    @property
    def limits(self) -> tuple[RateLimit, ...]:
        return tuple(bucket.limit for bucket in self.model.buckets.values())

    @rule(amount=st.integers(0, 600), tokens=st.integers(0, 900))
    def reserve(self, amount: int, tokens: int) -> None:
        self.names += 1
        name, now_ms, model = f"r{self.names:04}", self.scripts.now_ms, self.model
        amount = amount if self.budgets else 0
        answer = self.scripts.reserve(name, amount=amount, tokens=tokens, budgets=self.budgets, limits=self.limits)
        assert isinstance(answer, Admitted) == (not self.expect_refusals(amount, tokens)), answer
        if not isinstance(answer, Admitted):
            return
        counted = {each.id: part_of(each, now_ms) for each in self.budgets} if amount else {}
        for each in counted.items():
            model.reserved[each] += amount
        for metric, bucket in model.buckets.items():
            if metric != "concurrency":
                bucket.add(tokens if metric == "tokens_per_minute" else 1, now_ms, bucket.limit.limit)
        expires_ms = (now_ms // 1000 + LIFETIME_S) * 1000
        for hard in self.budgets if amount else ():
            if hard.mode == "hard":
                assert model.spent(hard, now_ms) + model.held_of(hard, now_ms) <= hard.limit_nano_usd
        limits = {metric: bucket.limit.limit for metric, bucket in model.buckets.items()}
        if self.budgets or not {"tokens_per_minute", "concurrency"}.isdisjoint(model.buckets):
            model.held[name] = Held(amount, tokens, expires_ms, counted, limits)

    def expect_refusals(self, amount: int, tokens: int) -> set[str]:
        """The ceilings that must say no."""
        model, now_ms, refusing = self.model, self.scripts.now_ms, set()
        for each in self.budgets if amount else ():
            spent, limit_nano_usd = model.spent(each, now_ms), each.limit_nano_usd
            if each.mode == "hard" and amount > limit_nano_usd - spent - model.held_of(each, now_ms):
                refusing.add(each.id)
            if each.mode == "soft" and spent >= limit_nano_usd:
                refusing.add(each.id)
        for metric, bucket in model.buckets.items():
            if metric == "concurrency":
                full = model.leases(now_ms) >= bucket.limit.limit
            else:
                units = tokens if metric == "tokens_per_minute" else 1
                full = bucket.now(now_ms, bucket.limit.limit) + units * bucket.unit > bucket.limit.limit * bucket.unit
            if full:
                refusing.add(metric)
        return refusing

    @precondition(lambda self: any(not held.is_swept for held in self.model.held.values()))
    @rule(data=st.data())
    def reserve_again(self, data: st.DataObject) -> None:
        """The gateway did not hear whether it was admitted, and asks once more."""
        name = data.draw(st.sampled_from(sorted(n for n, held in self.model.held.items() if not held.is_swept)))
        held = self.model.held[name]
        answer = self.scripts.reserve(
            name, amount=held.amount, tokens=held.tokens, budgets=self.budgets, limits=self.limits
        )
        assert isinstance(answer, Admitted), answer

    @precondition(lambda self: HARD in self.kinds)
    @rule(to=st.integers(0, 2500))
    def change_the_budget(self, to: int) -> None:
        """It is raised, for a while or for good, or lowered below what is spent: then nothing more is let in."""
        self.hard_limit = to

    @precondition(lambda self: self.model.held)
    @rule(data=st.data(), share=st.floats(0, 1), tokens=st.integers(0, 1200), repeat=st.booleans())
    def settle(self, data: st.DataObject, share: float, tokens: int, repeat: bool) -> None:
        """The request is over: served, failed or cancelled; its gateway may say so twice."""
        name = data.draw(st.sampled_from(sorted(self.model.held)))
        cost = int(self.model.held[name].amount * share)
        assert self.scripts.settle(name, cost=cost, tokens=tokens)
        self.model.settle(name, cost, tokens, self.scripts.now_ms)
        if repeat:
            assert not self.scripts.settle(name, cost=cost + 1, tokens=tokens + 1)

    @rule(name=st.sampled_from(["r0001", "unknown"]))
    def settle_what_may_not_be_there(self, name: str) -> None:
        if name not in self.model.held:
            assert not self.scripts.settle(name, cost=5, tokens=5)

    @rule(seconds=st.sampled_from([0.001, 0.5, 1, 7.3, 30, 61, 3600, 86_400]))
    def wait(self, seconds: float) -> None:
        """Time passes; gateways that hold something may have died meanwhile."""
        self.scripts.advance(seconds)

    @rule()
    def sweep(self) -> None:
        self.scripts.sweep()
        self.model.sweep(self.scripts.now_ms)

    @precondition(lambda self: self.model.buckets)
    @rule(data=st.data(), to=st.integers(1, 2000))
    def change_a_limit(self, data: st.DataObject, to: int) -> None:
        metric = data.draw(st.sampled_from(sorted(self.model.buckets)))
        bucket = self.model.buckets[metric]
        bucket.limit = raised(bucket.limit, to)

    @invariant()
    def redis_agrees(self) -> None:
        if not hasattr(self, "model"):
            return
        model, now_ms = self.model, self.scripts.now_ms
        for each in self.budgets:
            part = each.id, part_of(each, now_ms)
            assert self.scripts.counter(each) == (model.settled[part], model.reserved[part])
        for metric, bucket in model.buckets.items():
            key = redis_keys.rate_limit(ORG, bucket.limit.id)
            if metric == "concurrency":
                assert self.client.zcount(key, f"({now_ms}", "+inf") == model.leases(now_ms)
            else:
                stored = cast("bytes | None", self.client.get(key))
                level, at_ms = struct.unpack("<dd", stored) if stored else (0, 0)
                unit = DAY_MS if metric == "requests_per_day" else 1
                assert (level, at_ms) == (bucket.level * unit, bucket.at_ms)

    def teardown(self) -> None:
        """Every request comes to its end: nothing may be left of it."""
        if not hasattr(self, "model"):
            return
        for name in list(self.model.held):
            assert self.scripts.settle(name)
        assert cast("list[Any]", self.client.keys("*:reservation*")) == []
        leases = redis_keys.rate_limit(ORG, "concurrency")  # those of swept requests have run out and go with the key
        assert self.client.zcount(leases, f"({self.scripts.now_ms}", "+inf") == 0
        for counter in self.client.scan_iter("*:budget:*"):
            assert int(cast("bytes", self.client.hget(counter, "reserved")) or 0) == 0


@pytest.mark.slow
def test_the_scripts_do_what_the_model_does(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        machine = type("AdmissionsHere", (Admissions,), {"client": client})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=100,
                stateful_step_count=30,
                phases=(Phase.explicit, Phase.generate),  # making a failure smaller takes minutes
            ),
        )

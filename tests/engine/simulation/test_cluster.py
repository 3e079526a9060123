"""The virtual clock: nothing lost, the same every time, and nobody sees what a gateway could not see."""

# ruff: noqa: ARG002  # the signatures are those of Policy and Dispatcher

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ias.engine.scheduler import Limits
from ias.engine.simulation import workloads
from ias.engine.simulation.cluster import Outage, ReplicaSpec, Run, Setting, simulate
from ias.engine.simulation.dispatch import Decision, Direct, Policy, ReplicaView, Request, Send
from ias.engine.simulation.policies import LeastQueued, LeastRequests, PrefixAffinity, Random, RoundRobin
from ias.engine.simulation.results import summarize
from ias.engine.simulation.workloads import Lengths
from ias.engine.step_time import find_profile

PROFILE = find_profile("llama-3.1-8b@h100")
LENGTHS = Lengths(question=80, output=30)


def cluster(count: int, *outages: Outage, blocks: int = 2000) -> list[ReplicaSpec]:
    """Replicas, of which the first has the outages."""
    limits = Limits(num_gpu_blocks=blocks)
    return [ReplicaSpec(f"r{n}", limits, PROFILE, outages=outages if n == 0 else ()) for n in range(count)]


def sharing(seed: int = 1, rate: float = 10) -> list[workloads.Conversation]:
    return workloads.shared_prefixes(
        rate=rate, duration_s=20, groups=12, prefix_tokens=2000, lengths=LENGTHS, seed=seed
    )


def digest(run: Run) -> str:
    return hashlib.sha256(repr(run.records).encode()).hexdigest()


POLICIES = {
    "round-robin": RoundRobin,
    "random": lambda: Random(3),
    "least-requests": LeastRequests,
    "least-queued": LeastQueued,
    "prefix-affinity": PrefixAffinity,
}


@pytest.mark.parametrize("name", POLICIES)
def test_every_request_ends_once_with_all_its_tokens(name: str) -> None:
    workload = workloads.merge(
        sharing(),
        workloads.chat(rate=1, duration_s=20, turns=4, think_s=2, system_tokens=300, lengths=LENGTHS, seed=2),
        workloads.prefix_tree(rate=2, duration_s=20, branching=(2, 3), tokens=(100, 200), lengths=LENGTHS, seed=3),
        workloads.flood(tenant="f", starts_s=5, duration_s=5, rate=20, lengths=LENGTHS, seed=4),
    )
    run = simulate(workload, cluster(3), lambda _: Direct(POLICIES[name]()), Setting(gateways=2))
    assert len(run.records) == sum(len(conversation.turns) for conversation in workload)
    assert {record.status for record in run.records} == {"ok"}
    assert sum(record.output_tokens for record in run.records) == sum(
        turn.output_tokens for conversation in workload for turn in conversation.turns
    )
    for record in run.records:
        assert record.cached_tokens < record.prompt_tokens
        assert record.first_token_s is not None
        assert record.ended_s is not None
        assert record.arrived_s < record.first_token_s <= record.ended_s


def test_the_same_seed_gives_the_same_records_in_every_process() -> None:
    program = (
        "from tests.engine.simulation.test_cluster import *;"
        "print(digest(simulate(sharing(5), cluster(3, Outage(4, 9)), lambda _: Direct(PrefixAffinity()), Setting(gateways=3))))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parents[3],
            env={**os.environ, "PYTHONHASHSEED": str(number)},
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        ).stdout
        for number in (1, 2)
    }
    assert len(seen) == 1
    other = simulate(sharing(6), cluster(3, Outage(4, 9)), lambda _: Direct(PrefixAffinity()), Setting(gateways=3))
    assert digest(other) not in seen


def test_no_request_is_lost_that_another_replica_could_serve() -> None:
    outages = [Outage(3 + number * 0.61, 3.3 + number * 0.61) for number in range(20)]
    run = simulate(sharing(rate=60), cluster(3, *outages), lambda _: Direct(RoundRobin()))
    assert {record.status for record in run.records} == {"ok", "failed"}
    failed = [record for record in run.records if record.status == "failed"]
    assert all(record.first_token_s is not None for record in failed)
    assert {record.ended_s for record in failed} <= {outage.dies_s for outage in outages}
    assert any(record.attempts > 1 and record.status == "ok" for record in run.records)


def test_a_replica_comes_back_with_an_empty_cache() -> None:
    run = simulate(sharing(), cluster(2, Outage(8, 9)), lambda _: Direct(RoundRobin()))
    served = [record for record in run.records if record.replica == 0 and record.status == "ok"]
    before = [record.cached_tokens for record in served if record.arrived_s < 8]
    after = [record.cached_tokens for record in served if record.arrived_s > 9]
    assert before[-1] > 0
    assert after[0] == 0
    assert after[-1] > 0


def test_with_no_replica_alive_requests_are_refused_and_none_waits_for_ever() -> None:
    run = simulate(sharing(), cluster(1, Outage(5)), lambda _: Direct(RoundRobin()))
    assert {record.status for record in run.records if record.arrived_s > 5} == {"refused"}


class Watching:
    """A policy that notes what it was shown."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, list[ReplicaView]]] = []

    def choose(self, request: Request, replicas: Sequence[ReplicaView], now_s: float) -> int | None:
        assert all(replica.in_flight >= 0 and replica.in_flight_tokens >= 0 for replica in replicas)
        assert all(now_s - replica.scrape.taken_s <= 3.0 + 1e-9 for replica in replicas)
        self.seen.append((now_s, [ReplicaView(r.index, r.name, r.weight, in_flight=r.in_flight) for r in replicas]))
        return replicas[len(self.seen) % len(replicas)].index


def test_a_gateway_sees_its_own_requests_at_once_and_metrics_late() -> None:
    policies = [Watching(), Watching()]
    run = simulate(
        sharing(), cluster(2), lambda number: Direct(policies[number]), Setting(gateways=2, scrape_every_s=3.0)
    )
    assert sum(len(policy.seen) for policy in policies) == len(run.records)
    for policy in policies:
        assert sum(view.in_flight for view in policy.seen[0][1]) == 0
        assert any(view.in_flight for _, views in policy.seen for view in views)


class Holding:
    """A dispatcher that lets one request at a time through."""

    def __init__(self) -> None:
        self.queue: list[Request] = []
        self.busy = False
        self.in_flight_max = 0

    def arrive(self, request: Request, replicas: Sequence[ReplicaView], now_s: float) -> list[Decision]:
        self.queue.append(request)
        return self._next(replicas)

    def begin(self, request: Request, replica: int, now_s: float) -> list[Decision]:
        return []

    def end(self, request, replica, outcome, replicas: Sequence[ReplicaView], now_s: float) -> list[Decision]:
        self.busy = False
        return self._next(replicas)

    def refresh(self, replicas: Sequence[ReplicaView], now_s: float) -> list[Decision]:
        self.in_flight_max = max(self.in_flight_max, sum(replica.in_flight for replica in replicas))
        return []

    def _next(self, replicas: Sequence[ReplicaView]) -> list[Decision]:
        if self.busy or not self.queue:
            return []
        self.busy = True
        return [Send(self.queue.pop(0), 0)]


def test_a_dispatcher_may_hold_requests_and_none_is_forgotten() -> None:
    holding = Holding()
    run = simulate(sharing(), cluster(1), lambda _: holding)
    assert {record.status for record in run.records} == {"ok"}
    assert holding.in_flight_max == 1


def hit_rate(policy: Policy) -> float:
    run = simulate(sharing(), cluster(4, blocks=600), lambda _: Direct(policy))
    return summarize(run.records, since_s=5, until_s=20, ttft_objective_s=1).cache_hit_rate


def test_affinity_finds_in_the_cache_what_taking_turns_does_not() -> None:
    assert hit_rate(PrefixAffinity()) > 1.5 * hit_rate(RoundRobin())


@given(st.integers(1, 3), st.floats(0.5, 3))
def test_a_slower_replica_answers_later_and_loses_nothing(turns: int, slowness: float) -> None:
    workload = workloads.chat(
        rate=2, duration_s=5, turns=turns, think_s=1, system_tokens=100, lengths=LENGTHS, seed=turns
    )
    spec = cluster(1)[0]
    slow = ReplicaSpec(spec.name, spec.limits, spec.step_time, slowness=slowness)
    ends = [simulate(workload, [one], lambda _: Direct(RoundRobin())).ended_s for one in (spec, slow)]
    assert (ends[0] <= ends[1]) == (slowness >= 1)

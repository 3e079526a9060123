"""Compare ways of choosing replicas on the virtual clock: `python -m benchmarks.routing.run --help`.

To compare another policy, add how a gateway with it is made to POLICIES; ias.engine.simulation.dispatch says what it must offer.
"""

import argparse
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.routing.gateway_dispatcher import GatewayDispatcher, Told
from benchmarks.routing.plots import draw_bars
from benchmarks.routing.scenarios import DURATION_S, SCENARIOS, WARM_UP_S, Scenario
from ias.engine.simulation.cluster import Run, Setting, simulate
from ias.engine.simulation.dispatch import Direct, Dispatcher
from ias.engine.simulation.policies import LeastQueued, LeastRequests, PrefixAffinity, Random, RoundRobin
from ias.engine.simulation.results import Summary, fairness, summarize, summarize_tenants


def make_own(gateways: int) -> Callable[[int], Dispatcher]:
    """The gateway's own routing; they tell one another once a second what orgs were given."""
    told = Told()
    return lambda number: GatewayDispatcher(number, gateways, told=told)


POLICIES: Mapping[str, Callable[[int], Callable[[int], Dispatcher]]] = {
    "round-robin": lambda _: lambda _: Direct(RoundRobin()),
    "random": lambda _: lambda number: Direct(Random(number)),
    "least-requests": lambda _: lambda _: Direct(LeastRequests()),
    "least-queued": lambda _: lambda _: Direct(LeastQueued()),
    "prefix-affinity": lambda _: lambda _: Direct(PrefixAffinity()),
    "gateway": make_own,
}
"""For so many gateways: how the one of a number is made."""

ATTAINMENT = 0.95
"""Capacity is the highest rate at which this share of requests has its first token within the objective."""
SEARCH_FACTORS = (0.35, 0.5, 0.7, 1.0, 1.2, 1.4, 1.7, 2.0, 2.4, 2.8, 3.4, 4.0, 5.6, 8.0)
"""Of a scenario's rate: those that are tried, until two in a row above it fail."""
HEADER = (
    "| scenario | policy | ok | within | goodput/s | capacity/s | TTFT p50 | p99 | ITL p50 | hits | Jain"
    " | victims p99 | of alone |"
)


@dataclass(frozen=True)
class Asked:
    """One cell of the table."""

    scenario: str
    policy: str
    gateways: int
    seed: int
    search: bool


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", action="append", choices=list(SCENARIOS), help="only this one; repeatable")
    parser.add_argument("--policy", action="append", choices=list(POLICIES), help="only this one; repeatable")
    parser.add_argument("--gateways", type=int, default=1, help="gateways; each knows its own requests alone [1]")
    parser.add_argument("--seed", type=int, default=1, help="of the workload [1]")
    parser.add_argument("--no-capacity", action="store_true", help="do not search for capacities: much quicker")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="simulations at a time [all processors]")
    parser.add_argument("--plot", type=Path, help="draw each policy's goodput into this SVG file")
    given = parser.parse_args()
    cells = [
        Asked(scenario, policy, given.gateways, given.seed, not given.no_capacity)
        for scenario in given.scenario or SCENARIOS
        for policy in given.policy or POLICIES
    ]
    print(HEADER)
    print("|" + "---|" * (HEADER.count("|") - 1))
    simulated_s = cpu_s = 0.0
    bars: dict[str, list[float]] = {policy: [] for policy in given.policy or POLICIES}
    with ProcessPoolExecutor(given.processes) as pool:
        for cell, (line, goodput, replica_seconds, took_s) in zip(cells, pool.map(measure, cells), strict=True):
            print(line, flush=True)
            bars[cell.policy].append(goodput)
            simulated_s += replica_seconds
            cpu_s += took_s
    if given.plot:
        title = "First tokens within the objective, requests a second, at each scenario's own rate"
        given.plot.write_text(draw_bars(title, given.scenario or list(SCENARIOS), bars))
    print(f"\n{simulated_s:.0f} replica-seconds in {cpu_s:.0f} s of processor time: {simulated_s / cpu_s:.0f} a second")


def measure(asked: Asked) -> tuple[str, float, float, float]:
    """A line of the table, the goodput, the replica-seconds simulated and the processor time it took."""
    began = time.process_time()
    scenario = SCENARIOS[asked.scenario]
    run = simulate_at(scenario, asked, scenario.rate)
    replica_seconds = run.replica_seconds
    capacity = "-"
    if asked.search:
        found, searched = search_capacity(scenario, asked)
        capacity, replica_seconds = f"{found:.1f}", replica_seconds + searched
    goodput = summary_of(scenario, run).goodput
    return describe(scenario, asked, run, capacity), goodput, replica_seconds, time.process_time() - began


def simulate_at(scenario: Scenario, asked: Asked, rate: float) -> Run:
    """One run. What has not ended three minutes after the last arrival counts as it stands."""
    return simulate(
        scenario.build(rate, asked.seed),
        scenario.replicas,
        POLICIES[asked.policy](asked.gateways),
        Setting(gateways=asked.gateways, seed=asked.seed),
        until_s=DURATION_S + 180,
    )


def search_capacity(scenario: Scenario, asked: Asked) -> tuple[float, float]:
    """The goodput at the highest of the rates that still meets the objective; and the replica-seconds it took."""
    best = replica_seconds = 0.0
    failures = 0
    for factor in SEARCH_FACTORS:
        run = simulate_at(scenario, asked, factor * scenario.rate)
        replica_seconds += run.replica_seconds
        summary = summary_of(scenario, run)
        failures = 0 if summary.attainment >= ATTAINMENT else failures + 1
        if failures == 0:
            best = summary.goodput
        elif failures > 1 and factor > 1:  # below, caches may be colder than they would be at a higher rate
            break
    return best, replica_seconds


def summary_of(scenario: Scenario, run: Run) -> Summary:
    """The measured window."""
    return summarize(run.records, since_s=WARM_UP_S, until_s=DURATION_S, ttft_objective_s=scenario.ttft_objective_s)


def measure_alone(scenario: Scenario, asked: Asked) -> float:
    """The victims' p99 on half of the replicas without the others, by the same policy in one gateway, in seconds."""
    if scenario.alone is None:
        return float("nan")
    workload, replicas = scenario.alone(scenario.rate, asked.seed), scenario.replicas[: len(scenario.replicas) // 2]
    return summary_of(
        scenario, simulate(workload, replicas, POLICIES[asked.policy](1), Setting(seed=asked.seed))
    ).ttft.p99


def describe(scenario: Scenario, asked: Asked, run: Run, capacity: str) -> str:
    """A line of the table."""
    summary = summary_of(scenario, run)
    tenants = summarize_tenants(
        run.records, since_s=WARM_UP_S, until_s=DURATION_S, ttft_objective_s=scenario.ttft_objective_s
    )
    victims = max((tenants[tenant].ttft.p99 for tenant in scenario.victims), default=None)
    index = fairness(run.records, since_s=WARM_UP_S, until_s=DURATION_S)
    cells = (
        *(asked.scenario, asked.policy, f"{summary.ok}/{summary.requests}", f"{summary.attainment:.0%}"),
        *(f"{summary.goodput:.1f}", capacity, f"{summary.ttft.p50:.3f} s", f"{summary.ttft.p99:.3f} s"),
        *(f"{summary.itl.p50 * 1000:.1f} ms", f"{summary.cache_hit_rate:.0%}", f"{index:.2f}"),
        *(("-", "-") if victims is None else (f"{victims:.3f} s", f"{victims / measure_alone(scenario, asked):.2f}")),
    )
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()

"""The comparison as it stands in README.md and docs/routing: several seeds, capacities, the loss with several gateways, plots.

python -m benchmarks.routing.report [--seeds 3] [--plots docs/routing]
"""

import argparse
import os
import statistics
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.routing.gateway_dispatcher import GatewayDispatcher
from benchmarks.routing.plots import draw_bars
from benchmarks.routing.run import Asked, search_capacity, simulate_at, summary_of
from benchmarks.routing.scenarios import DURATION_S, LENGTHS, REPLICAS, SCENARIOS, WARM_UP_S, cluster
from ias.engine.simulation import workloads
from ias.engine.simulation.cluster import Setting, simulate
from ias.engine.simulation.results import fairness, summarize, summarize_tenants

POLICIES = ("round-robin", "random", "least-requests", "prefix-affinity", "gateway")
CAPACITY_SCENARIOS = ("sharing", "chat", "unshared", "heterogeneous")
GATEWAYS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Cell:
    """One simulation, or one search for a capacity."""

    asked: Asked
    alone: bool = False
    """The victim alone, on its share of the replicas: half of them, there being two tenants."""


@dataclass(frozen=True)
class Figures:
    """What came of it."""

    capacity: float = 0.0
    within: float = 0.0
    hits: float = 0.0
    p99_s: float = 0.0
    jain: float = 0.0
    victim_p99_s: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--plots", type=Path, default=Path("docs/routing"))
    given = parser.parse_args()
    seeds = range(1, given.seeds + 1)
    cells = list_cells(seeds)
    with ProcessPoolExecutor(given.processes) as pool:
        results = dict(zip(cells, pool.map(measure, cells), strict=True))
    given.plots.mkdir(parents=True, exist_ok=True)
    report_capacities(results, seeds, given.plots)
    report_rates(results, seeds)
    report_flood(results, seeds)
    report_gateways(results, seeds, given.plots)


def list_cells(seeds: Sequence[int]) -> list[Cell]:
    cells = []
    for seed in seeds:
        for policy in POLICIES:
            cells += [Cell(Asked(name, policy, 1, seed, True)) for name in CAPACITY_SCENARIOS]
            cells += [Cell(Asked(name, policy, 1, seed, False)) for name in SCENARIOS]
        cells.append(Cell(Asked("flood", "gateway", 1, seed, False), alone=True))
        cells += [
            Cell(Asked(s, "gateway", n, seed, s == "sharing")) for n in GATEWAYS[1:] for s in ("sharing", "flood")
        ]
    return cells


def measure(cell: Cell) -> Figures:
    asked = cell.asked
    scenario = SCENARIOS[asked.scenario]
    if cell.alone:
        load = workloads.unshared(
            rate=scenario.rate, duration_s=DURATION_S, lengths=LENGTHS, seed=asked.seed, tenant="victim"
        )
        run = simulate(load, cluster()[: REPLICAS // 2], GatewayDispatcher, Setting(seed=asked.seed))
        return Figures(
            victim_p99_s=summarize(run.records, since_s=WARM_UP_S, until_s=DURATION_S, ttft_objective_s=1).ttft.p99
        )
    if asked.search:
        return Figures(capacity=search_capacity(scenario, asked)[0])
    run = simulate_at(scenario, asked, scenario.rate)
    summary = summary_of(scenario, run)
    window = {"since_s": WARM_UP_S, "until_s": DURATION_S}
    tenants = summarize_tenants(run.records, **window, ttft_objective_s=scenario.ttft_objective_s)
    return Figures(
        within=summary.attainment,
        hits=summary.cache_hit_rate,
        p99_s=summary.ttft.p99,
        jain=fairness(run.records, **window),
        victim_p99_s=max((tenants[tenant].ttft.p99 for tenant in scenario.victims), default=0.0),
    )


Results = dict[Cell, Figures]


def pick(results: Results, seeds: Sequence[int], name: str, asked: Asked, *, alone: bool = False) -> list[float]:
    return [getattr(results[Cell(replace(asked, seed=seed), alone)], name) for seed in seeds]


def spread(values: Sequence[float], form: str = ".1f") -> str:
    """The median and, where they differ, the extremes."""
    low, middle, high = (format(v, form) for v in (min(values), statistics.median(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


def report_capacities(results: Results, seeds: Sequence[int], plots: Path) -> None:
    print("\nGoodput at the highest rate with 95 % of first tokens within 0.5 s, requests a second:\n")
    print("| scenario | " + " | ".join(POLICIES) + " | gateway : round-robin |")
    print("|---" * (len(POLICIES) + 2) + "|")
    bars: dict[str, list[float]] = defaultdict(list)
    for name in CAPACITY_SCENARIOS:
        found = {p: pick(results, seeds, "capacity", Asked(name, p, 1, 0, True)) for p in POLICIES}
        ratio = [a / b for a, b in zip(found["gateway"], found["round-robin"], strict=True) if b]
        told = f"{spread(ratio)} x" if ratio else "round-robin meets it at no rate"
        print(f"| `{name}` | " + " | ".join(spread(found[p]) for p in POLICIES) + f" | {told} |")
        for policy in POLICIES:
            bars[policy].append(statistics.median(found[policy]))
    title = "Goodput at the TTFT objective (95 % within 0.5 s), requests a second"
    (plots / "goodput.svg").write_text(draw_bars(title, CAPACITY_SCENARIOS, bars))


def report_rates(results: Results, seeds: Sequence[int]) -> None:
    print("\nAt each scenario's own rate:\n")
    print("| scenario | policy | within | hits | TTFT p99 | Jain |\n|---|---|---|---|---|---|")
    for name in SCENARIOS:
        for policy in POLICIES:
            asked = Asked(name, policy, 1, 0, False)
            cells = [
                spread(pick(results, seeds, "within", asked), ".0%"),
                spread(pick(results, seeds, "hits", asked), ".0%"),
            ]
            cells += [
                spread(pick(results, seeds, "p99_s", asked), ".2f") + " s",
                spread(pick(results, seeds, "jain", asked), ".2f"),
            ]
            print(f"| `{name}` | {policy} | " + " | ".join(cells) + " |")


def report_flood(results: Results, seeds: Sequence[int]) -> None:
    alone = pick(results, seeds, "victim_p99_s", Asked("flood", "gateway", 1, 0, False), alone=True)
    print(f"\nThe flooded tenant's TTFT p99; alone on half of the replicas it is {spread(alone, '.3f')} s:\n")
    print("| policy | gateways | p99 | of its value alone |\n|---|---|---|---|")
    for policy, gateways in [*((p, 1) for p in POLICIES), *(("gateway", n) for n in GATEWAYS[1:])]:
        found = pick(results, seeds, "victim_p99_s", Asked("flood", policy, gateways, 0, False))
        ratios = [a / b for a, b in zip(found, alone, strict=True)]
        print(f"| {policy} | {gateways} | {spread(found, '.3f')} s | {spread(ratios, '.2f')} x |")


def report_gateways(results: Results, seeds: Sequence[int], plots: Path) -> None:
    print("\nHeavy sharing with several gateways that know nothing of one another:\n")
    print("| gateways | goodput | of one gateway's |\n|---|---|---|")
    found = {n: pick(results, seeds, "capacity", Asked("sharing", "gateway", n, 0, True)) for n in GATEWAYS}
    for gateways, values in found.items():
        ratios = [a / b for a, b in zip(values, found[1], strict=True)]
        print(f"| {gateways} | {spread(values)} | {spread(ratios, '.0%')} |")
    bars = {"goodput": [statistics.median(values) for values in found.values()]}
    title = "Heavy sharing: goodput by number of gateways, requests a second"
    (plots / "gateways.svg").write_text(draw_bars(title, [f"{n}" for n in GATEWAYS], bars))


if __name__ == "__main__":
    main()

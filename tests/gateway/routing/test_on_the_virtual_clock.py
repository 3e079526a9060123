"""What routing is for, on the simulator's clock: the same on every machine. `benchmarks/routing` has the whole comparison."""

import pytest
from benchmarks.routing.gateway_dispatcher import GatewayDispatcher
from benchmarks.routing.run import Asked, make_own, measure_alone, simulate_at, summary_of
from benchmarks.routing.scenarios import DURATION_S, LENGTHS, SCENARIOS, WARM_UP_S, cluster

from ias.engine.simulation import workloads
from ias.engine.simulation.cluster import Setting, simulate
from ias.engine.simulation.results import fairness, summarize_tenants


def test_where_prompts_are_shared_it_serves_twice_as_many_in_time_as_round_robin() -> None:
    scenario = SCENARIOS["sharing"]
    found = {
        policy: summary_of(scenario, simulate_at(scenario, Asked("sharing", policy, 1, 1, False), 30.0))
        for policy in ("round-robin", "gateway")
    }
    assert found["gateway"].attainment > 0.99
    assert found["gateway"].cache_hit_rate > 0.9
    assert found["gateway"].goodput > 2 * found["round-robin"].goodput


@pytest.mark.parametrize("gateways", [1, 8])
def test_who_is_flooded_hardly_notices_however_many_gateways_there_are(gateways: int) -> None:
    scenario, asked = SCENARIOS["flood"], Asked("flood", "gateway", gateways, 7, False)
    window = {"since_s": WARM_UP_S, "until_s": DURATION_S - 5, "ttft_objective_s": 0.5}
    setting = Setting(gateways=gateways, seed=asked.seed)
    load = scenario.build(scenario.rate, asked.seed)
    run = simulate(load, scenario.replicas, make_own(gateways), setting, until_s=DURATION_S)
    flooded = summarize_tenants(run.records, **window)["victim"]
    assert flooded.ok == flooded.requests
    assert flooded.ttft.p99 < 1.3 * measure_alone(scenario, asked)


def test_where_all_ask_for_more_than_there_is_each_is_given_what_its_weight_says() -> None:
    weights = {"small": 100, "large": 300}
    loads = [workloads.unshared(rate=40, duration_s=20, lengths=LENGTHS, seed=1, tenant=name) for name in weights]
    run = simulate(
        workloads.merge(*loads),
        cluster()[:1],
        lambda number: GatewayDispatcher(number, weights=weights),
        Setting(seed=1),
        until_s=20,
    )
    window = {"since_s": 5, "until_s": 20}
    assert fairness(run.records, **window, weights=weights) > 0.99
    assert fairness(run.records, **window) < 0.85

"""What policies are compared on: eight replicas of Llama-3.1-8B on A100 40 GB, and loads that stress one thing each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ias.engine.scheduler import Limits
from ias.engine.simulation import workloads
from ias.engine.simulation.cluster import Outage, ReplicaSpec
from ias.engine.simulation.workloads import Conversation, Lengths
from ias.engine.step_time import find_profile

REPLICAS = 8
WARM_UP_S = 20.0
MEASURED_S = 40.0
DURATION_S = WARM_UP_S + MEASURED_S
LENGTHS = Lengths(question=200, output=100, spread=0.5)

_PROFILE = find_profile("llama-3.1-8b@a100-40gb")
_LIMITS = Limits(num_gpu_blocks=_PROFILE.count_blocks())


@dataclass(frozen=True)
class Scenario:
    """One load on one cluster. `build` takes a rate in requests (chat: conversations) a second and a seed."""

    about: str
    build: Callable[[float, int], list[Conversation]]
    replicas: tuple[ReplicaSpec, ...]
    rate: float
    """Where policies are compared below saturation; also where the search for their capacity begins."""
    ttft_objective_s: float = 0.5
    victims: tuple[str, ...] = ()
    """Tenants whose latency is told apart."""
    alone: Callable[[float, int], list[Conversation]] | None = None
    """Their load without the others', which half of the replicas, their share, would serve."""


def cluster(*, slow: Mapping[int, float] | None = None, outage: Outage | None = None) -> tuple[ReplicaSpec, ...]:
    """The replicas; some slower, the first with an outage."""
    return tuple(
        ReplicaSpec(
            f"r{number}",
            _LIMITS,
            _PROFILE,
            slowness=(slow or {}).get(number, 1.0),
            outages=(outage,) if outage and number == 0 else (),
        )
        for number in range(REPLICAS)
    )


def sharing(rate: float, seed: int) -> list[Conversation]:
    """64 system prompts of 4,000 tokens, all asked alike: 1.5 times what one replica's cache holds."""
    return workloads.shared_prefixes(
        rate=rate, duration_s=DURATION_S, groups=64, prefix_tokens=4000, lengths=LENGTHS, seed=seed, tenants=4
    )


def chat(rate: float, seed: int) -> list[Conversation]:
    """Conversations of five turns on average, five seconds of thought between them, behind one system prompt."""
    return workloads.chat(
        rate=rate, duration_s=DURATION_S, turns=5, think_s=5, system_tokens=1000, lengths=Lengths(400, 150), seed=seed
    )


def unshared(rate: float, seed: int) -> list[Conversation]:
    """Nothing in common: what affinity may not spoil."""
    return workloads.unshared(rate=rate, duration_s=DURATION_S, lengths=Lengths(600, 100), seed=seed)


def flooded(rate: float, seed: int) -> list[Conversation]:
    """A tenant with a modest load, beside one that sends twenty times as much as from a third of the time on."""
    crowd = workloads.flood(
        tenant="flood", starts_s=WARM_UP_S, duration_s=MEASURED_S, rate=20 * rate, lengths=Lengths(1500, 100), seed=seed
    )
    return workloads.merge(victim(rate, seed), crowd)


def victim(rate: float, seed: int) -> list[Conversation]:
    """The modest one of `flooded`."""
    return workloads.unshared(rate=rate, duration_s=DURATION_S, lengths=LENGTHS, seed=seed, tenant="victim")


SCENARIOS: Mapping[str, Scenario] = {
    "sharing": Scenario("heavy prefix sharing", sharing, cluster(), 20),
    "chat": Scenario("multi-turn chat", chat, cluster(), 6),
    "unshared": Scenario("no sharing", unshared, cluster(), 30),
    "flood": Scenario("one tenant flooding", flooded, cluster(), 5, victims=("victim",), alone=victim),
    "heterogeneous": Scenario(
        "two of eight replicas three times as slow, heavy sharing", sharing, cluster(slow={0: 3, 1: 3}), 15
    ),
    "outage": Scenario("a replica dies and returns, heavy sharing", sharing, cluster(outage=Outage(30, 45)), 20),
}

"""What came out of a run: latencies, goodput, cache hits and fairness."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(slots=True)
class Record:
    """One request, from the client's side."""

    number: int
    tenant: str
    prompt_tokens: int
    arrived_s: float
    output_tokens: int = 0
    """That its client got."""
    cached_tokens: int = 0
    first_token_s: float | None = None
    ended_s: float | None = None
    replica: int | None = None
    """That served it, or tried last."""
    attempts: int = 0
    status: Literal["pending", "ok", "failed", "refused"] = "pending"

    @property
    def ttft_s(self) -> float:
        """Time to first token; infinite where none came."""
        return math.inf if self.first_token_s is None else self.first_token_s - self.arrived_s

    @property
    def itl_s(self) -> float | None:
        """Mean time between tokens; None for fewer than two."""
        if self.ended_s is None or self.first_token_s is None or self.output_tokens < 2:
            return None
        return (self.ended_s - self.first_token_s) / (self.output_tokens - 1)

    @property
    def work_tokens(self) -> int:
        """What it cost the replicas: prompt tokens that were not cached, and output."""
        return self.prompt_tokens - self.cached_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of a latency, in seconds."""

    p50: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True)
class Summary:
    """A run, or one tenant's part of it, over the requests that arrived in the measured window."""

    requests: int
    ok: int
    goodput: float
    """Requests a second that succeeded with their first token within the objective."""
    attainment: float
    """The share of all requests that did."""
    ttft: Percentiles
    itl: Percentiles
    e2e: Percentiles
    cache_hit_rate: float
    """Share of prompt tokens found in caches."""
    output_tokens_per_s: float


def summarize(records: Sequence[Record], *, since_s: float, until_s: float, ttft_objective_s: float) -> Summary:
    """Figures of the requests that arrived in the window."""
    measured = [record for record in records if since_s <= record.arrived_s < until_s]
    ok = [record for record in measured if record.status == "ok"]
    good = sum(1 for record in ok if record.ttft_s <= ttft_objective_s)
    prompt_tokens = sum(record.prompt_tokens for record in ok)
    window_s = until_s - since_s
    return Summary(
        requests=len(measured),
        ok=len(ok),
        goodput=good / window_s,
        attainment=good / len(measured) if measured else 1.0,
        ttft=percentiles([record.ttft_s for record in measured]),
        itl=percentiles([record.itl_s for record in ok if record.itl_s is not None]),
        e2e=percentiles([(record.ended_s or math.inf) - record.arrived_s for record in ok]),
        cache_hit_rate=sum(record.cached_tokens for record in ok) / prompt_tokens if prompt_tokens else 0.0,
        output_tokens_per_s=sum(record.output_tokens for record in ok) / window_s,
    )


def summarize_tenants(
    records: Sequence[Record], *, since_s: float, until_s: float, ttft_objective_s: float
) -> dict[str, Summary]:
    """The same for each tenant."""
    return {
        tenant: summarize(
            [record for record in records if record.tenant == tenant],
            since_s=since_s,
            until_s=until_s,
            ttft_objective_s=ttft_objective_s,
        )
        for tenant in sorted({record.tenant for record in records})
    }


def percentiles(values: Sequence[float]) -> Percentiles:
    """By nearest rank; zeros where there is nothing."""
    if not values:
        return Percentiles(0.0, 0.0, 0.0)
    ordered = sorted(values)
    p50, p90, p99 = (ordered[max(0, math.ceil(share * len(ordered)) - 1)] for share in (0.5, 0.9, 0.99))
    return Percentiles(p50, p90, p99)


def jain(values: Sequence[float]) -> float:
    """Jain's index: 1 where all are equal, 1/n where one has everything."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def fairness(
    records: Sequence[Record], *, since_s: float, until_s: float, weights: Mapping[str, float] | None = None
) -> float:
    """Jain's index over what each tenant got, divided by what it was entitled to.

    What it got is the work of its requests that ended in the window; what it was entitled to is its max-min share of all work done
    then, by weights: nobody is entitled to more than it asked for, and what one leaves belongs to the others.
    """
    tenants = sorted({record.tenant for record in records})
    served = dict.fromkeys(tenants, 0.0)
    asked = dict.fromkeys(tenants, 0.0)
    for record in records:
        if since_s <= record.arrived_s < until_s:
            asked[record.tenant] += record.work_tokens if record.status == "ok" else record.prompt_tokens
        if record.status == "ok" and since_s <= (record.ended_s or math.inf) < until_s:
            served[record.tenant] += record.work_tokens
    entitled = _share(sum(served.values()), asked, weights or dict.fromkeys(tenants, 1.0))
    return jain([served[tenant] / entitled[tenant] for tenant in tenants if entitled[tenant]])


def _share(total: float, asked: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
    """Max-min fair shares of a total."""
    shares: dict[str, float] = {}
    left = total
    for tenant in sorted(asked, key=lambda name: asked[name] / weights[name]):
        remaining_weight = sum(weights[name] for name in asked if name not in shares)
        shares[tenant] = min(asked[tenant], left * weights[tenant] / remaining_weight)
        left -= shares[tenant]
    return shares

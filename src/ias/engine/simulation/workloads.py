"""Who asks what and when: conversations of one or many turns, drawn from a seed.

A workload is a list of conversations. All generators draw arrivals from a Poisson process; lengths are log-normal around a median,
as those of real traffic are. Contents are numbers: the same number is the same text.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from ias.engine.simulation.prompts import Prompt

TOKENS_MAX = 16_384
"""No draw is longer."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One request of a conversation."""

    question_tokens: int
    output_tokens: int
    think_s: float = 0.0
    """From the end of the previous answer until it is asked."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What one user asks in a row; each prompt is the one before, its answer, and the next question."""

    starts_s: float
    tenant: str
    opening: Prompt
    """What the first prompt begins with: system prompt, tools, documents."""
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Lengths:
    """Medians of tokens, and how widely they spread (sigma of the logarithm; 0 is always the median)."""

    question: int = 200
    output: int = 150
    spread: float = 0.5


def unshared(*, rate: float, duration_s: float, lengths: Lengths, seed: int, tenant: str = "a") -> list[Conversation]:
    """Requests that have nothing in common."""
    draw = random.Random(f"{seed}|unshared|{tenant}")  # noqa: S311  # reproducible, not a secret
    return [Conversation(at_s, tenant, Prompt(), (_turn(draw, lengths),)) for at_s in _poisson(draw, rate, duration_s)]


def shared_prefixes(
    *,
    rate: float,
    duration_s: float,
    groups: int,
    prefix_tokens: int,
    lengths: Lengths,
    seed: int,
    skew: float = 0.0,
    tenants: int = 1,
) -> list[Conversation]:
    """Requests that begin with one of a number of long system prompts; under a skew above 0 some are asked far more often."""
    draw = random.Random(f"{seed}|shared")  # noqa: S311  # reproducible, not a secret
    openings = [Prompt(group % tenants).extend(1_000_000 + group, prefix_tokens) for group in range(groups)]
    weights = [1 / (rank + 1) ** skew for rank in range(groups)]
    chosen = draw.choices(range(groups), weights, k=int(rate * duration_s * 2) + 100)
    return [
        Conversation(at_s, f"t{group % tenants}", openings[group], (_turn(draw, lengths),))
        for at_s, group in zip(_poisson(draw, rate, duration_s), chosen, strict=False)
    ]


def chat(
    *,
    rate: float,
    duration_s: float,
    turns: int,
    think_s: float,
    system_tokens: int,
    lengths: Lengths,
    seed: int,
    tenant: str = "a",
) -> list[Conversation]:
    """Conversations of (on average) so many turns behind one system prompt; `rate` counts conversations a second."""
    draw = random.Random(f"{seed}|chat|{tenant}")  # noqa: S311  # reproducible, not a secret
    opening = Prompt().extend(2_000_000, system_tokens)
    conversations = []
    for at_s in _poisson(draw, rate, duration_s):
        count = 1 + min(int(draw.expovariate(1 / max(turns - 1, 1e-9))), 4 * turns) if turns > 1 else 1
        told = tuple(_turn(draw, lengths, draw.expovariate(1 / think_s)) for _ in range(count))
        conversations.append(Conversation(at_s, tenant, opening, told))
    return conversations


def prefix_tree(
    *,
    rate: float,
    duration_s: float,
    branching: tuple[int, ...],
    tokens: tuple[int, ...],
    lengths: Lengths,
    seed: int,
    tenant: str = "a",
) -> list[Conversation]:
    """Requests whose prompts share beginnings of several depths: an organisation's rules, an application's, a document."""
    draw = random.Random(f"{seed}|tree|{tenant}")  # noqa: S311  # reproducible, not a secret
    leaves = [(Prompt(), 3_000_000)]
    for branches, length in zip(branching, tokens, strict=True):
        leaves = [
            (prompt.extend(content * 31 + branch, length), content * 31 + branch)
            for prompt, content in leaves
            for branch in range(1, branches + 1)
        ]
    return [
        Conversation(at_s, tenant, draw.choice(leaves)[0], (_turn(draw, lengths),))
        for at_s in _poisson(draw, rate, duration_s)
    ]


def flood(
    *, tenant: str, starts_s: float, duration_s: float, rate: float, lengths: Lengths, seed: int
) -> list[Conversation]:
    """One tenant's burst of requests that have nothing in common."""
    burst = unshared(rate=rate, duration_s=duration_s, lengths=lengths, seed=seed, tenant=tenant)
    return [Conversation(starts_s + one.starts_s, tenant, one.opening, one.turns) for one in burst]


def merge(*workloads: list[Conversation]) -> list[Conversation]:
    """All of them at once."""
    return sorted((one for workload in workloads for one in workload), key=lambda one: one.starts_s)


def _poisson(draw: random.Random, rate: float, duration_s: float) -> Iterator[float]:
    at_s = draw.expovariate(rate)
    while at_s < duration_s:
        yield at_s
        at_s += draw.expovariate(rate)


def _turn(draw: random.Random, lengths: Lengths, think_s: float = 0.0) -> Turn:
    return Turn(_draw(draw, lengths.question, lengths.spread), _draw(draw, lengths.output, lengths.spread), think_s)


def _draw(draw: random.Random, median: int, spread: float) -> int:
    return max(1, min(TOKENS_MAX, round(draw.lognormvariate(math.log(median), spread))))

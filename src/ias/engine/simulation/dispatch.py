"""The seam between the simulator and what is compared in it: a gateway's way of choosing replicas.

A **policy** answers one question: which replica should take this request. Most need no more.

    class Least:
        def choose(self, request, replicas, now_s):
            return min(replicas, key=lambda replica: replica.in_flight).index

    run(..., make_dispatcher=lambda gateway: Direct(Least()))

`replicas` are those the gateway may choose from: alive as far as it knows, and not yet tried for this request. None refuses.

A **dispatcher** is a whole gateway: it may hold requests, refuse them, send them again, and learns what became of them. `Direct`
makes one of a policy: it sends at once, and what was lost before its first token it sends elsewhere, `ATTEMPTS_MAX` times at most.

Nobody here sees what a gateway could not see: a request's output length is unknown, another gateway's requests show only in the
replicas' metrics, and these are as old as the last scrape.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ias.engine.simulation.prompts import Prompt

ATTEMPTS_MAX = 3

Status = Literal["ok", "lost"]


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """What a gateway knows of a request."""

    number: int
    tenant: str
    prompt: Prompt
    """`prompt.names` are the names of its blocks of 16 tokens, the tenant's salt included: hash these."""
    output_tokens_max: int
    """What the client set as `max_tokens`."""
    arrived_s: float
    conversation: int
    """The same for all turns of one."""


@dataclass(slots=True)
class Scrape:
    """A replica's metrics as they were."""

    taken_s: float = 0.0
    running: int = 0
    waiting: int = 0
    kv_cache_usage: float = 0.0
    preemptions: int = 0


@dataclass(slots=True, eq=False)
class ReplicaView:
    """A replica as one gateway sees it."""

    index: int
    name: str
    weight: float
    """Its share of traffic by configuration; 1 is usual."""
    alive: bool = True
    """What this gateway believes; a death is known by a health check, or by a connection that is refused."""
    in_flight: int = 0
    """Requests that this gateway has sent and that have not ended."""
    in_flight_tokens: int = 0
    """Their prompts' tokens."""
    scrape: Scrape = field(default_factory=Scrape)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended."""

    status: Status
    had_first_token: bool
    cached_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Send:
    """Give the request to the replica with this index."""

    request: Request
    replica: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer with an error."""

    request: Request


Decision = Send | Refuse


class Policy(Protocol):
    """Chooses; may remember."""

    def choose(self, request: Request, replicas: Sequence[ReplicaView], now_s: float) -> int | None:
        """The index of one of these replicas, or None to refuse."""
        ...


class Dispatcher(Protocol):
    """One gateway. What it neither sends nor refuses it holds, and it must decide about it later."""

    def arrive(self, request: Request, replicas: Sequence[ReplicaView], now_s: float) -> Iterable[Decision]:
        """A request has come in."""
        ...

    def begin(self, request: Request, replica: int, now_s: float) -> Iterable[Decision]:
        """Its first token has come."""
        ...

    def end(
        self, request: Request, replica: int, outcome: Outcome, replicas: Sequence[ReplicaView], now_s: float
    ) -> Iterable[Decision]:
        """An attempt has ended. What was lost may be sent again if it had no first token; else the client has its error."""
        ...

    def refresh(self, replicas: Sequence[ReplicaView], now_s: float) -> Iterable[Decision]:
        """The replicas have been scraped and checked."""
        ...


class Direct:
    """A gateway without a queue: it sends where its policy says."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._tried: dict[int, list[int]] = {}

    def arrive(self, request: Request, replicas: Sequence[ReplicaView], now_s: float) -> Iterable[Decision]:
        """See Dispatcher."""
        tried = self._tried.get(request.number, ())
        candidates = [replica for replica in replicas if replica.alive and replica.index not in tried]
        chosen = self._policy.choose(request, candidates, now_s) if candidates else None
        if chosen is None:
            self._tried.pop(request.number, None)
            return [Refuse(request)]
        return [Send(request, chosen)]

    def begin(self, request: Request, replica: int, now_s: float) -> Iterable[Decision]:  # noqa: ARG002  # see Dispatcher
        """See Dispatcher."""
        return []

    def end(
        self, request: Request, replica: int, outcome: Outcome, replicas: Sequence[ReplicaView], now_s: float
    ) -> Iterable[Decision]:
        """See Dispatcher."""
        if outcome.status == "ok" or outcome.had_first_token:
            self._tried.pop(request.number, None)
            return []
        tried = self._tried.setdefault(request.number, [])
        tried.append(replica)
        if len(tried) >= ATTEMPTS_MAX:
            del self._tried[request.number]
            return [Refuse(request)]
        return self.arrive(request, replicas, now_s)

    def refresh(self, replicas: Sequence[ReplicaView], now_s: float) -> Iterable[Decision]:  # noqa: ARG002  # see Dispatcher
        """See Dispatcher."""
        return []

"""The virtual clock: conversations arrive, gateways choose, replicas compute, and time jumps from one event to the next.

Deterministic: the same workload, seed and dispatchers give the same records. Ties go by the order in which events were planned.
"""

import heapq
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ias.engine.replica import Replica
from ias.engine.scheduler import Limits
from ias.engine.scheduler import Sequence as Answer
from ias.engine.simulation.dispatch import Decision, Dispatcher, Outcome, ReplicaView, Request, Scrape, Send
from ias.engine.simulation.prompts import Prompt
from ias.engine.simulation.results import Record
from ias.engine.simulation.workloads import Conversation
from ias.engine.step_time import StepTime

_STEPS_MAX = 1_000_000
_ANSWERS = 1 << 40
"""Contents from here on are answers and questions, and no generator's."""


@dataclass(frozen=True, slots=True)
class Outage:
    """A replica dies, and comes back with an empty cache."""

    dies_s: float
    returns_s: float = float("inf")


@dataclass(frozen=True, slots=True)
class ReplicaSpec:
    """One replica of the cluster."""

    name: str
    limits: Limits
    step_time: StepTime
    weight: float = 1.0
    slowness: float = 1.0
    outages: tuple[Outage, ...] = ()


@dataclass(frozen=True, slots=True)
class Setting:
    """What surrounds gateways and replicas."""

    gateways: int = 1
    """Requests are spread over them at random; none knows of another's."""
    scrape_every_s: float = 1.0
    """How old metrics are at most."""
    health_every_s: float = 2.0
    """How long a death or a return is unknown at most, unless a connection is refused before."""
    connect_s: float = 0.001
    """What a refused connection costs."""
    output_tokens_max: int = 4096
    """`max_tokens` of every request."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """What happened."""

    records: list[Record]
    ended_s: float
    replica_seconds: float
    preemptions: int


def simulate(
    workload: Sequence[Conversation],
    replicas: Sequence[ReplicaSpec],
    make_dispatcher: Callable[[int], Dispatcher],
    setting: Setting | None = None,
    *,
    until_s: float = float("inf"),
) -> Run:
    """Run a workload to its end, or until then; `make_dispatcher` makes the gateway of a number."""
    cluster = _Cluster(replicas, make_dispatcher, setting or Setting())
    return cluster.run(workload, until_s)


@dataclass(slots=True)
class _Host:
    """A replica and what belongs to it."""

    spec: ReplicaSpec
    machine: Replica
    alive: bool = True
    version: int = 0
    """Of its planned end of step: events of an older one are void."""
    attempts: dict[Answer, "_Attempt"] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Asked:
    """One request under way and the conversation it belongs to."""

    request: Request
    record: Record
    gateway: "_Gateway"
    conversation: Conversation
    turn: int
    whole: Prompt
    """Prompt and answer."""


@dataclass(slots=True, eq=False)
class _Attempt:
    """A request at a replica."""

    asked: _Asked
    host: int


@dataclass(slots=True)
class _Gateway:
    dispatcher: Dispatcher
    views: list[ReplicaView]


class _Cluster:
    """The state of a run."""

    def __init__(
        self, specs: Sequence[ReplicaSpec], make_dispatcher: Callable[[int], Dispatcher], setting: Setting
    ) -> None:
        self._setting = setting
        self._draw = random.Random(f"{setting.seed}|gateways")  # noqa: S311  # reproducible, not a secret
        self._hosts = [_make_host(spec) for spec in specs]
        self._gateways = [
            _Gateway(make_dispatcher(number), [ReplicaView(i, spec.name, spec.weight) for i, spec in enumerate(specs)])
            for number in range(setting.gateways)
        ]
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._planned = 0
        self._now_s = 0.0
        self._records: list[Record] = []
        self._asked: dict[int, _Asked] = {}
        self._preemptions = 0
        self._pending = 0
        """Arrivals that are planned and have not happened."""

    def run(self, workload: Sequence[Conversation], until_s: float) -> Run:
        for number, conversation in enumerate(workload):
            self._pending += 1
            self._plan(conversation.starts_s, self._arrive, number, conversation, 0, conversation.opening)
        for index, host in enumerate(self._hosts):
            for outage in host.spec.outages:
                self._plan(outage.dies_s, self._die, index)
                self._plan(outage.returns_s, self._return, index)
        self._plan(0.0, self._scrape)
        self._plan(0.0, self._check_health)
        while self._events and (self._pending or self._asked):
            at_s, _, action, given = heapq.heappop(self._events)
            if at_s > until_s or at_s == float("inf"):
                break
            self._now_s = at_s
            action(*given)
        preemptions = self._preemptions + sum(host.machine.scheduler.counts.preemptions for host in self._hosts)
        return Run(self._records, self._now_s, self._now_s * len(self._hosts), preemptions)

    def _plan(self, at_s: float, action: Callable[..., None], *given: Any) -> None:
        self._planned += 1
        heapq.heappush(self._events, (at_s, self._planned, action, given))

    # Requests

    def _arrive(self, number: int, conversation: Conversation, turn: int, before: Prompt) -> None:
        self._pending -= 1
        told = conversation.turns[turn]
        content = _ANSWERS + number * 1_000_000 + turn * 2
        prompt = before.extend(content, told.question_tokens)
        whole = prompt.extend(content + 1, told.output_tokens)
        identity = len(self._records)
        request = Request(
            number=identity,
            tenant=conversation.tenant,
            prompt=prompt,
            output_tokens_max=max(self._setting.output_tokens_max, told.output_tokens),
            arrived_s=self._now_s,
            conversation=number,
        )
        record = Record(identity, conversation.tenant, prompt.tokens, self._now_s)
        self._records.append(record)
        gateway = self._gateways[self._draw.randrange(len(self._gateways))]
        self._asked[identity] = _Asked(request, record, gateway, conversation, turn, whole)
        self._follow(gateway.dispatcher.arrive(request, gateway.views, self._now_s))

    def _follow(self, decisions: Iterable[Decision]) -> None:
        for decision in decisions:
            asked = self._asked[decision.request.number]
            if not isinstance(decision, Send):
                self._end_request(asked, "refused")
                continue
            view = asked.gateway.views[decision.replica]
            view.in_flight += 1
            view.in_flight_tokens += asked.request.prompt.tokens
            asked.record.attempts += 1
            asked.record.replica = decision.replica
            attempt = _Attempt(asked, decision.replica)
            if self._hosts[decision.replica].alive:
                overhead_s = self._hosts[decision.replica].machine.step_time.request_overhead_s
                self._plan(self._now_s + overhead_s, self._submit, attempt)
            else:
                self._plan(self._now_s + self._setting.connect_s, self._be_refused, attempt)

    def _be_refused(self, attempt: _Attempt) -> None:
        attempt.asked.gateway.views[attempt.host].alive = False
        self._lose(attempt)

    def _lose(self, attempt: _Attempt) -> None:
        """The attempt ended without an answer; the gateway says whether there is another."""
        asked, record = attempt.asked, attempt.asked.record
        outcome = Outcome("lost", record.first_token_s is not None)
        self._leave(attempt)
        if outcome.had_first_token:
            self._end_request(asked, "failed")
        gateway = asked.gateway
        self._follow(gateway.dispatcher.end(asked.request, attempt.host, outcome, gateway.views, self._now_s))

    def _leave(self, attempt: _Attempt) -> None:
        view = attempt.asked.gateway.views[attempt.host]
        view.in_flight -= 1
        view.in_flight_tokens -= attempt.asked.request.prompt.tokens

    def _end_request(self, asked: _Asked, status: Any) -> None:
        asked.record.status = status
        asked.record.ended_s = self._now_s
        del self._asked[asked.request.number]

    def _succeed(self, attempt: _Attempt, answer: Answer) -> None:
        asked, record = attempt.asked, attempt.asked.record
        record.output_tokens = answer.output_tokens
        record.cached_tokens = answer.cached_tokens or 0
        self._leave(attempt)
        self._end_request(asked, "ok")
        if asked.turn + 1 < len(asked.conversation.turns):
            self._pending += 1
            at_s = self._now_s + asked.conversation.turns[asked.turn + 1].think_s
            turn = (asked.request.conversation, asked.conversation, asked.turn + 1, asked.whole)
            self._plan(at_s, self._arrive, *turn)
        gateway = asked.gateway
        outcome = Outcome(
            "ok", had_first_token=True, cached_tokens=record.cached_tokens, output_tokens=record.output_tokens
        )
        self._follow(gateway.dispatcher.end(asked.request, attempt.host, outcome, gateway.views, self._now_s))

    # Replicas

    def _submit(self, attempt: _Attempt) -> None:
        host = self._hosts[attempt.host]
        if not host.alive:
            self._lose(attempt)
            return
        asked = attempt.asked
        told = asked.conversation.turns[asked.turn]
        answer = Answer(asked.request.prompt.tokens, told.output_tokens, list(asked.whole.names))
        host.attempts[answer] = attempt
        host.machine.submit(answer)
        if host.machine.step is None:
            self._compute(attempt.host)
        else:
            host.machine.cut(self._now_s)
            self._plan_end(attempt.host)

    def _compute(self, index: int) -> None:
        if self._hosts[index].machine.start(self._now_s, _STEPS_MAX) is not None:
            self._plan_end(index)

    def _plan_end(self, index: int) -> None:
        host = self._hosts[index]
        host.version += 1
        step = host.machine.step
        if step is not None:
            self._plan(step.ends_s, self._end_step, index, host.version)

    def _end_step(self, index: int, version: int) -> None:
        host = self._hosts[index]
        if host.version != version:
            return
        for answer in host.machine.complete():
            ended = answer.output_tokens == answer.output_tokens_max
            if answer.output_tokens > 1 and not ended:
                continue
            attempt = host.attempts[answer]
            record = attempt.asked.record
            if record.first_token_s is None:
                record.first_token_s = self._now_s
                self._follow(attempt.asked.gateway.dispatcher.begin(attempt.asked.request, index, self._now_s))
            if ended:
                host.machine.scheduler.finish(answer)
                del host.attempts[answer]
                self._succeed(attempt, answer)
        if host.machine.step is None:  # an answer's end may have brought a new request already
            self._compute(index)

    def _die(self, index: int) -> None:
        host = self._hosts[index]
        host.alive = False
        host.version += 1
        lost = list(host.attempts.values())
        self._preemptions += host.machine.scheduler.counts.preemptions
        host.attempts.clear()
        host.machine = _make_machine(host.spec)
        for attempt in lost:
            attempt.asked.gateway.views[index].alive = False
            self._lose(attempt)

    def _return(self, index: int) -> None:
        self._hosts[index].alive = True

    # What gateways learn

    def _scrape(self) -> None:
        for gateway in self._gateways:
            for view, host in zip(gateway.views, self._hosts, strict=True):
                if host.alive:
                    view.scrape = _read(host.machine, self._now_s)
            self._follow(gateway.dispatcher.refresh(gateway.views, self._now_s))
        self._plan(self._now_s + self._setting.scrape_every_s, self._scrape)

    def _check_health(self) -> None:
        for gateway in self._gateways:
            for view, host in zip(gateway.views, self._hosts, strict=True):
                view.alive = host.alive
        self._plan(self._now_s + self._setting.health_every_s, self._check_health)


def _make_host(spec: ReplicaSpec) -> _Host:
    return _Host(spec, _make_machine(spec))


def _make_machine(spec: ReplicaSpec) -> Replica:
    machine = Replica(spec.limits, spec.step_time)
    machine.slowness = spec.slowness
    return machine


def _read(machine: Replica, now_s: float) -> Scrape:
    """Metrics; blocks that a run of steps has taken since its beginning are not counted yet."""
    scheduler = machine.scheduler
    return Scrape(
        now_s, len(scheduler.running), scheduler.waiting, machine.kv_cache_usage, scheduler.counts.preemptions
    )

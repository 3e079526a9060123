"""Whatever happens to requests and backends, in whatever order, nothing stays counted that is over."""

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ias.contracts.backend_states import BackendState
from ias.gateway.routing.asks import Ask
from ias.gateway.routing.fair_queue import Waiting
from ias.gateway.routing.loads import Place
from tests.gateway.routing.world import backend, prompt, router

STRATEGIES = ("prefix", "least_tokens", "weighted", "priority")


class Requests(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.names = [f"b{n}" for n in range(4)]
        self.router = router(*(backend(name, concurrency_max=3) for name in self.names))
        self.held: list[tuple[Ask, Place]] = []
        self.over: list[Place] = []
        self.waiting: list[Waiting] = []
        self.now = 0.0

    def take(self, ask: Ask, place: Place) -> None:
        self.router.queue.charge(ask.org_id, ask.work, self.now, ask.weight, place)
        self.held.append((ask, place))

    def serve(self) -> None:
        for waiting, place in self.router.next_placed(self.now):
            self.waiting.remove(waiting)
            self.take(waiting.ask, place)

    @rule(org=st.sampled_from("abc"), text=st.text(max_size=2000), streamed=st.booleans())
    def arrive(self, org: str, text: str, streamed: bool) -> None:
        ask = prompt(text, org, output_tokens=10, is_streamed=streamed)
        found = self.router.ask(ask)
        if isinstance(found, Place):
            self.take(ask, found)
        else:
            waiting = Waiting(ask, None, self.now)
            leaves = self.router.queue.push(waiting)
            if leaves is not waiting:
                self.waiting.append(waiting)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def begin(self, data) -> None:
        data.draw(st.sampled_from(self.held))[1].begin()
        self.serve()

    @precondition(lambda self: self.held)
    @rule(data=st.data(), used=st.integers(0, 5000), fails=st.booleans())
    def end(self, data, used: int, fails: bool) -> None:
        """Success, error, timeout, cancellation: to the count they are one."""
        ask, place = data.draw(st.sampled_from(self.held))
        self.held = [pair for pair in self.held if pair[1] is not place]
        assert place.release()
        self.over.append(place)
        self.router.queue.settle(ask.org_id, charged=ask.work, used=used)
        if fails:
            place.load.fail(self.now)
        self.serve()

    @precondition(lambda self: self.over)
    @rule(data=st.data())
    def end_again(self, data) -> None:
        assert not data.draw(st.sampled_from(self.over)).release()
        data.draw(st.sampled_from(self.over)).begin()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data) -> None:
        waiting = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(waiting)
        self.router.queue.remove(waiting)

    @rule(data=st.data(), strategy=st.sampled_from(STRATEGIES), sharers=st.integers(1, 3))
    def change(self, data, strategy: str, sharers: int) -> None:
        self.now += 1.0
        states = {
            name: BackendState(
                health=data.draw(st.sampled_from(["ready", "unready", "cold", "unknown"])),
                circuit=data.draw(st.sampled_from(["closed", "half_open", "open"])),
                since=0,
            )
            for name in self.names
        }
        order = data.draw(st.permutations(self.names))
        changed = router(*(backend(name, concurrency_max=3) for name in order), strategy=strategy).route
        self.router.update(changed, states, now_s=self.now, unix_s=1000 + self.now, sharers=sharers)
        self.serve()

    @invariant()
    def counted_is_what_is_held(self) -> None:
        for name, load in self.router.loads.items():
            held = [(ask, place) for ask, place in self.held if place.load is load]
            assert load.requests == len(held), name
            assert load.tokens == sum(ask.tokens + ask.output_tokens for ask, _ in held)
            assert 0 <= load.pending_tokens <= sum(ask.tokens for ask, _ in held)
            assert load.requests <= 3
        assert self.router.queue.length == len(self.waiting)

    def teardown(self) -> None:
        random.shuffle(self.held)
        for ask, place in self.held:
            place.release()
            self.router.queue.settle(ask.org_id, charged=ask.work, used=0)
        for load in self.router.loads.values():
            assert (load.requests, load.tokens, load.pending_tokens) == (0, 0, 0)
        assert not any(org.in_flight or org.unsettled for org in self.router.queue._orgs.values())


TestRequests = Requests.TestCase
TestRequests.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

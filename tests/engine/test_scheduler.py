"""What the scheduler promises, for any load: nothing lost, nothing leaked, never over a limit, always at work."""

from collections import Counter
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ias.engine.blocks import BLOCK_TOKENS
from ias.engine.replica import Replica
from ias.engine.scheduler import Limits, Plan, Scheduler, Sequence
from ias.engine.step_time import Calibrated, find_profile


@dataclass(frozen=True)
class Ask:
    """One request of a load; requests of one family begin alike for `shared` blocks."""

    arrives: int
    family: int
    shared: int
    own: int
    output: int
    priority: int
    aborts_after: int | None

    def make(self, number: int) -> Sequence:
        blocks = (self.shared * BLOCK_TOKENS + self.own + self.output) // BLOCK_TOKENS
        hashes = [(self.family, i) if i < self.shared else (number, i) for i in range(blocks)]
        return Sequence(self.shared * BLOCK_TOKENS + self.own, self.output, hashes, priority=self.priority)


ASKS = st.lists(
    st.builds(
        Ask,
        arrives=st.integers(0, 30),
        family=st.integers(0, 2),
        shared=st.integers(0, 4),
        own=st.integers(1, 60),
        output=st.integers(1, 40),
        priority=st.integers(0, 2),
        aborts_after=st.none() | st.integers(0, 40),
    ),
    min_size=1,
    max_size=12,
)
LIMITS = st.builds(
    Limits,
    max_num_batched_tokens=st.integers(8, 64),
    max_num_seqs=st.integers(1, 8),
    num_gpu_blocks=st.integers(11, 30),  # the largest request needs 11
    long_prefill_token_threshold=st.sampled_from([0, 10]),
    enable_prefix_caching=st.booleans(),
    scheduling_policy=st.sampled_from(["fcfs", "priority"]),
)
STEPS_MAX = 20_000


def check(scheduler: Scheduler, plan: Plan) -> None:
    """What holds after every decision."""
    limits = scheduler.limits
    assert sum(count for _, count in plan.chunks) <= limits.max_num_batched_tokens
    assert len(scheduler.running) <= limits.max_num_seqs
    assert len({id(sequence) for sequence, _ in plan.chunks}) == len(plan.chunks)
    scheduler.pool.check()
    held = Counter(block for sequence in scheduler.running for block in sequence.blocks)
    assert {block: count for block, count in enumerate(scheduler.pool._references) if count} == held
    for sequence, count in plan.chunks:
        assert sequence in scheduler.running
        assert len(sequence.blocks) * BLOCK_TOKENS >= sequence.computed + count
        assert sequence.computed + count <= sequence.tokens
        assert limits.long_prefill_token_threshold == 0 or count <= limits.long_prefill_token_threshold


def finish_complete(scheduler: Scheduler, plan: Plan) -> None:
    for sequence in scheduler.complete(plan):
        if sequence.output_tokens == sequence.output_tokens_max:
            scheduler.finish(sequence)


def abort_due(scheduler: Scheduler, sequences: list[Sequence], asks: list[Ask], step: int) -> None:
    for sequence, ask in zip(sequences, asks, strict=True):
        if ask.aborts_after is not None and sequence.state != "new" and step >= ask.arrives + ask.aborts_after:
            scheduler.finish(sequence)
            assert sequence.blocks == []


def check_first_waiting(scheduler: Scheduler, plan: Plan) -> None:
    """Whoever waits at the front had no seat, no budget or no blocks."""
    limits = scheduler.limits
    budget = limits.max_num_batched_tokens - sum(count for _, count in plan.chunks)
    if not scheduler.waiting or len(scheduler.running) == limits.max_num_seqs or not budget:
        return
    first = scheduler._waiting.first()
    cached = scheduler.pool.find_prefix(first.hashes, (first.tokens - 1) // BLOCK_TOKENS)
    cached = cached if limits.enable_prefix_caching else []
    start = len(cached) * BLOCK_TOKENS
    chunk = min(first.tokens - start, budget, limits.long_prefill_token_threshold or budget)
    needed = -(-(start + chunk) // BLOCK_TOKENS) - len(cached)
    assert needed > scheduler.pool.free - scheduler.pool.count_unused(cached)


@given(ASKS, LIMITS)
def test_every_request_ends_once_with_all_its_tokens_and_leaves_nothing_behind(asks: list[Ask], limits: Limits) -> None:
    scheduler = Scheduler(limits)
    sequences = [ask.make(number) for number, ask in enumerate(asks)]
    pending = sorted(range(len(asks)), key=lambda number: asks[number].arrives)
    for step in range(STEPS_MAX):
        while pending and (asks[pending[0]].arrives <= step or scheduler.is_idle):
            scheduler.add(sequences[pending.pop(0)])
        preemptions = scheduler.counts.preemptions
        plan = scheduler.plan()
        assert (plan is None) == scheduler.is_idle, "with something to do, something is done"
        if plan is not None:
            check(scheduler, plan)
            if scheduler.counts.preemptions == preemptions:
                check_first_waiting(scheduler, plan)
            finish_complete(scheduler, plan)
        abort_due(scheduler, sequences, asks, step)
        if not pending and scheduler.is_idle:
            break
    assert all(sequence.state == "finished" for sequence in sequences)
    assert scheduler.pool.used == 0
    for number, sequence in enumerate(sequences):
        if asks[number].aborts_after is None:
            assert sequence.output_tokens == asks[number].output
        assert (sequence.cached_tokens or 0) < sequence.prompt_tokens
    assert scheduler.counts.prefix_cache_hits <= scheduler.counts.prefix_cache_queries


@given(ASKS, LIMITS)
def test_runs_of_steps_come_to_the_same_as_single_steps(asks: list[Ask], limits: Limits) -> None:
    asks = [replace(ask, aborts_after=None) for ask in asks]
    assert trace(asks, limits, steps_max=1) == trace(asks, limits, steps_max=1000)


def trace(asks: list[Ask], limits: Limits, *, steps_max: int) -> list[tuple[int, float, int, int]]:
    """Who ended when, with how many cached tokens and preemptions; requests arrive every 7 ms."""
    replica = Replica(limits, find_profile("llama-3.1-8b@h100"))
    arrivals = sorted((ask.arrives * 0.007, number, ask.make(number)) for number, ask in enumerate(asks))
    numbers = {sequence: number for _, number, sequence in arrivals}
    now_s, ended = 0.0, []
    while arrivals or not replica.scheduler.is_idle:
        step = replica.start(now_s, steps_max)
        if step is None:
            now_s = max(now_s, arrivals[0][0])
        else:
            if arrivals:
                replica.cut(arrivals[0][0])
            now_s = step.ends_s
            for sequence in replica.complete():
                if sequence.output_tokens == sequence.output_tokens_max:
                    replica.scheduler.finish(sequence)
                    cached = sequence.cached_tokens or 0
                    ended.append((numbers[sequence], round(now_s, 6), cached, sequence.preemptions))
        while arrivals and arrivals[0][0] <= now_s:
            replica.submit(arrivals.pop(0)[2])
    return ended


def test_a_prompt_is_computed_in_chunks_beside_what_is_being_decoded() -> None:
    scheduler = Scheduler(Limits(max_num_batched_tokens=64, max_num_seqs=4, num_gpu_blocks=100))
    short, long = Sequence(10, 50, []), Sequence(200, 5, [])
    scheduler.add(short)
    scheduler.add(long)
    chunks = []
    for _ in range(5):
        plan = scheduler.plan()
        assert plan is not None
        chunks.append([count for _, count in plan.chunks])
        scheduler.complete(plan)
    assert chunks == [[10, 54], [1, 63], [1, 63], [1, 20], [1, 1]]


def test_the_last_to_come_is_preempted_computes_again_and_loses_no_token() -> None:
    scheduler = Scheduler(Limits(num_gpu_blocks=4, enable_prefix_caching=False))
    first, second = Sequence(16, 40, []), Sequence(16, 40, [])
    scheduler.add(first)
    scheduler.add(second)
    order = []
    while not scheduler.is_idle:
        plan = scheduler.plan()
        assert plan is not None
        for sequence in scheduler.complete(plan):
            if sequence.output_tokens == 40:
                scheduler.finish(sequence)
                order.append(sequence)
    assert order == [first, second]
    assert (first.preemptions, second.preemptions) == (0, 1)
    assert second.output_tokens == 40


def test_the_urgent_overtake_and_push_out_the_less_urgent() -> None:
    scheduler = Scheduler(Limits(max_num_seqs=1, scheduling_policy="priority"))
    late, soon = Sequence(16, 1, [], priority=5), Sequence(16, 1, [], priority=-1)
    scheduler.add(late)
    scheduler.add(soon)
    plan = scheduler.plan()
    assert plan is not None
    assert [sequence for sequence, _ in plan.chunks] == [soon]


def test_what_could_never_run_is_refused() -> None:
    with pytest.raises(ValueError, match="KV cache"):
        Scheduler(Limits(num_gpu_blocks=4)).add(Sequence(60, 5, []))
    with pytest.raises(ValueError, match="max_num_batched_tokens"):
        Limits(max_num_batched_tokens=10, max_num_seqs=20)


@pytest.mark.parametrize(
    ("profile", "batch", "context", "published_ms"),
    [
        ("llama-3.1-8b@h100", 1, 200, 6.48),
        ("llama-3.1-8b@h100", 4, 200, 6.59),
        ("llama-3.1-8b@a100-40gb", 1, 1100, 13.3),
    ],
)
def test_decode_steps_take_what_was_published_within_a_twentieth(
    profile: str, batch: int, context: int, published_ms: float
) -> None:
    step = find_profile(profile).first_step_s(Plan([], 0, batch, batch * context))
    assert step * 1000 == pytest.approx(published_ms, rel=0.05)


def test_prompts_are_computed_as_fast_as_was_published() -> None:
    chunk = find_profile("qwen3-32b@2xh100").first_step_s(Plan([], 8192, 0, 8192))
    assert 15_900 <= 8192 / chunk <= 20_500


def test_the_cache_has_the_blocks_that_vllm_found_room_for() -> None:
    profile = find_profile("llama-3.1-8b@h100")
    assert isinstance(profile, Calibrated)
    assert profile.count_blocks() == pytest.approx(29_205, rel=0.02)


@pytest.mark.parametrize(
    "name", ["llama-3.1-8b", "llama-3.1-8b@tpu", "gpt@h100", "llama-3.1-70b@a100-80gb", "@", "llama-3.1-8b@0xh100"]
)
def test_a_profile_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"no profile|do not fit"):
        find_profile(name)

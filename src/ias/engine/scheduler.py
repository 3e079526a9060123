"""Which tokens the next step computes: continuous batching with a token budget, chunked prefill, priorities and preemption.

The rules are those of vLLM's scheduler (vllm/v1/core/sched/scheduler.py), without what concerns speculation, images and
connectors. There is no prefill phase and no decode phase: a sequence has tokens that are known and tokens that are computed, and a
step brings the second nearer to the first. Where they meet, the step yields one more token.

1. Running sequences come first, in their order; each gets what it lacks, within the budget. One that finds no blocks preempts the
   last in the batch (or the least urgent): its blocks are freed, its computed tokens forgotten, and it waits at the front.
2. If nothing was preempted, waiting sequences join while seats, budget and blocks last. The first that does not fit blocks all.

Pure: no clock, no text. The owner of a sequence appends its tokens' block hashes and says when it is finished.
"""

import heapq
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ias.engine.blocks import BLOCK_TOKENS, BlockPool

Policy = Literal["fcfs", "priority"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a replica's scheduler may do; the names are those of vLLM's options."""

    max_num_batched_tokens: int = 2048
    """Tokens a step computes at most."""
    max_num_seqs: int = 256
    """Sequences in the batch at most."""
    num_gpu_blocks: int = 16_384
    """Blocks of the KV cache."""
    long_prefill_token_threshold: int = 0
    """A prompt takes at most so many tokens of a step; 0 is as many as the budget allows."""
    enable_prefix_caching: bool = True
    scheduling_policy: Policy = "fcfs"

    def __post_init__(self) -> None:
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens ({self.max_num_batched_tokens}) must be at least max_num_seqs "
                f"({self.max_num_seqs}): every running sequence needs one token of the budget"
            )


@dataclass(slots=True, eq=False)
class Sequence:
    """One answer that grows from one prompt."""

    prompt_tokens: int
    output_tokens_max: int
    """It is finished at the latest when it has so many output tokens."""
    hashes: list[Hashable]
    """Names of the full blocks of prompt and output so far; the owner appends as the output grows."""
    priority: int = 0
    """Lower is sooner; counts only under the policy `priority`."""
    lora: str | None = None
    output_tokens: int = 0
    computed: int = 0
    """Tokens whose keys and values are in the blocks."""
    blocks: list[int] = field(default_factory=list)
    named: int = 0
    """How many of its blocks have been made findable."""
    cached_tokens: int | None = None
    """Prompt tokens found in the cache when it first ran; None before."""
    preemptions: int = 0
    number: int = 0
    """Order of arrival; the scheduler sets it."""
    state: Literal["new", "waiting", "running", "finished"] = "new"

    @property
    def tokens(self) -> int:
        """Prompt and output known so far."""
        return self.prompt_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Plan:
    """What one step (or a run of like decode steps) computes."""

    chunks: list[tuple[Sequence, int]]
    """Each scheduled sequence, and how many of its tokens a step computes."""
    prefill_tokens: int
    """Tokens of prompts (or of recomputed answers) in it."""
    decodes: int
    """Sequences that add exactly one token."""
    context_tokens: int
    """Tokens whose keys and values are read, over all sequences, in the first step."""
    steps_max: int = 1
    """Up to so many steps in a row are alike: only decodes, nothing joins, nothing ends before the last."""


@dataclass(slots=True)
class Counts:
    """What a scheduler has done so far, in tokens and events."""

    prefix_cache_queries: int = 0
    prefix_cache_hits: int = 0
    preemptions: int = 0


class Scheduler:
    """The batch and the queue of one replica."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.pool = BlockPool(limits.num_gpu_blocks)
        self.running: list[Sequence] = []
        self.counts = Counts()
        self._waiting: _Waiting = _PriorityWaiting() if limits.scheduling_policy == "priority" else _FirstComeWaiting()
        self._arrivals = 0

    @property
    def waiting(self) -> int:
        """Sequences in the queue."""
        return len(self._waiting)

    @property
    def is_idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return not self.running and not self._waiting

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence.

        Raises:
            ValueError: it could not even run alone, for the cache is too small.
        """
        if _blocks_for(sequence.prompt_tokens + sequence.output_tokens_max) > self.pool.total:
            raise ValueError("the sequence does not fit into the KV cache")
        self._arrivals += 1
        sequence.number = self._arrivals
        sequence.state = "waiting"
        self._waiting.push(sequence)

    def finish(self, sequence: Sequence) -> None:
        """A sequence has ended or is given up, wherever it is: its blocks are free at once. Doing it again does nothing."""
        if sequence.state == "waiting":
            self._waiting.remove(sequence)
        elif sequence.state == "running":
            self.running.remove(sequence)
            self._release(sequence)
        sequence.state = "finished"

    def preempt_all(self) -> None:
        """Put everything that runs back into the queue, as before sleep."""
        while self.running:
            self._preempt(self.running[-1])

    def plan(self, steps_max: int = 1) -> Plan | None:
        """Decide what the next step computes and take the blocks for it; None where there is nothing to do."""
        budget = self.limits.max_num_batched_tokens
        chunks, preempted, budget = self._plan_running(budget)
        settled = not preempted and (self._plan_waiting(chunks, budget) or not self._waiting)
        if not chunks:
            return None
        prefill_tokens = decodes = context_tokens = 0
        for sequence, count in chunks:
            context_tokens += sequence.computed
            if count == 1 and sequence.output_tokens:
                decodes += 1
            else:
                prefill_tokens += count
        context_tokens += prefill_tokens + decodes
        only_decodes = not prefill_tokens and len(chunks) == len(self.running)
        alike = self._count_alike(steps_max) if steps_max > 1 and settled and only_decodes else 1
        return Plan(chunks, prefill_tokens, decodes, context_tokens, alike)

    def complete(self, plan: Plan, steps: int = 1) -> list[Sequence]:
        """The planned step (or so many like it) is computed. Returns the sequences that got a token from each step."""
        yielding = []
        for sequence, count in plan.chunks:
            if sequence.state != "running":
                continue  # given up while it was computed
            sequence.computed += count
            if sequence.computed == sequence.prompt_tokens + sequence.output_tokens:
                sequence.output_tokens += steps
                yielding.append(sequence)
                if steps > 1:
                    self._advance(sequence, steps - 1)
        return yielding

    def _plan_running(self, budget: int) -> tuple[list[tuple[Sequence, int]], bool, int]:
        chunks: list[tuple[Sequence, int]] = []
        preempted = False
        index = 0
        while index < len(self.running) and budget > 0:
            sequence = self.running[index]
            lacking = sequence.prompt_tokens + sequence.output_tokens - sequence.computed
            if lacking == 1 and 0 < sequence.computed % BLOCK_TOKENS < BLOCK_TOKENS - 1:
                chunks.append(
                    (sequence, 1)
                )  # the usual case: one more token in a block that it neither begins nor fills
                budget -= 1
                index += 1
                continue
            count = self._limit(lacking, budget)
            while not self._grow(sequence, sequence.computed + count):
                victim = self._choose_victim()
                preempted = True
                for place, (scheduled, taken) in enumerate(chunks):
                    if scheduled is victim:  # it was given a part of this step already, which others may have now
                        budget += taken
                        index -= 1
                        del chunks[place]
                        break
                self._preempt(victim)
                if victim is sequence:
                    break
            if sequence.state != "running":
                continue  # the next one has moved to its place
            chunks.append((sequence, count))
            budget -= count
            index += 1
        return chunks, preempted, budget

    def _plan_waiting(self, chunks: list[tuple[Sequence, int]], budget: int) -> bool:
        """Let waiting sequences join; whether one was left behind that could not."""
        while self._waiting:
            if len(self.running) >= self.limits.max_num_seqs or budget <= 0:
                return True
            sequence = self._waiting.first()
            cached: list[int] = []
            if self.limits.enable_prefix_caching:
                # The last token is always computed, because the next one comes from it.
                cached = self.pool.find_prefix(sequence.hashes, (sequence.tokens - 1) // BLOCK_TOKENS)
            start = len(cached) * BLOCK_TOKENS
            count = self._limit(sequence.tokens - start, budget)
            needed = _blocks_for(start + count) - len(cached)
            if needed > self.pool.free - self.pool.count_unused(cached):
                return True
            self._waiting.remove(sequence)
            self._join(sequence, cached)
            self._grow(sequence, start + count)
            chunks.append((sequence, count))
            budget -= count
        return False

    def _join(self, sequence: Sequence, cached: list[int]) -> None:
        self.pool.take_cached(cached)
        sequence.blocks = list(cached)
        sequence.named = len(cached)
        sequence.computed = len(cached) * BLOCK_TOKENS
        if sequence.cached_tokens is None:
            sequence.cached_tokens = sequence.computed
            if self.limits.enable_prefix_caching:
                self.counts.prefix_cache_queries += sequence.tokens
                self.counts.prefix_cache_hits += sequence.computed
        sequence.state = "running"
        self.running.append(sequence)

    def _limit(self, tokens: int, budget: int) -> int:
        threshold = self.limits.long_prefill_token_threshold
        if threshold and tokens > threshold:
            tokens = threshold
        return min(tokens, budget)

    def _grow(self, sequence: Sequence, tokens: int) -> bool:
        """Make room for so many computed tokens and make blocks findable that will be full; False where too few are free."""
        needed = _blocks_for(tokens) - len(sequence.blocks)
        if needed > 0:
            if needed > self.pool.free:
                return False
            sequence.blocks += self.pool.allocate(needed)
        if self.limits.enable_prefix_caching:
            full = min(tokens // BLOCK_TOKENS, len(sequence.hashes))
            while sequence.named < full:
                self.pool.name(sequence.blocks[sequence.named], sequence.hashes[sequence.named])
                sequence.named += 1
        return True

    def _advance(self, sequence: Sequence, steps: int) -> None:
        before = sequence.computed
        after = sequence.computed = before + steps
        if after // BLOCK_TOKENS != before // BLOCK_TOKENS or after > len(sequence.blocks) * BLOCK_TOKENS:
            self._grow(sequence, after)

    def _count_alike(self, steps_max: int) -> int:
        """How many decode steps in a row need no decision."""
        batch = len(self.running)
        by_blocks = self.pool.free // batch * BLOCK_TOKENS  # each takes a block at most once in a block's tokens
        to_end = min(sequence.output_tokens_max - sequence.output_tokens for sequence in self.running)
        return max(1, min(steps_max, to_end, by_blocks))

    def _choose_victim(self) -> Sequence:
        if self.limits.scheduling_policy == "priority":
            return max(self.running, key=_urgency)
        return self.running[-1]

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._release(sequence)
        sequence.computed = 0
        sequence.preemptions += 1
        sequence.state = "waiting"
        self.counts.preemptions += 1
        self._waiting.push_front(sequence)

    def _release(self, sequence: Sequence) -> None:
        self.pool.release(sequence.blocks)
        sequence.blocks = []
        sequence.named = 0


class _Waiting(Protocol):
    """The queue: sequences in the order in which they are to join."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Sequence]: ...
    def push(self, sequence: Sequence) -> None: ...
    def push_front(self, sequence: Sequence) -> None: ...
    def first(self) -> Sequence: ...
    def remove(self, sequence: Sequence) -> None: ...


class _FirstComeWaiting:
    """First come, first served; what was preempted goes before all others."""

    def __init__(self) -> None:
        self._queue: deque[Sequence] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._queue)

    def push(self, sequence: Sequence) -> None:
        self._queue.append(sequence)

    def push_front(self, sequence: Sequence) -> None:
        self._queue.appendleft(sequence)

    def first(self) -> Sequence:
        return self._queue[0]

    def remove(self, sequence: Sequence) -> None:
        if self._queue[0] is sequence:
            self._queue.popleft()
        else:
            self._queue.remove(sequence)


class _PriorityWaiting:
    """The most urgent first; among equals the one that arrived first."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Sequence]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Sequence]:
        return (sequence for _, _, sequence in self._heap)

    def push(self, sequence: Sequence) -> None:
        heapq.heappush(self._heap, (*_urgency(sequence), sequence))

    def push_front(self, sequence: Sequence) -> None:
        self.push(sequence)

    def first(self) -> Sequence:
        return self._heap[0][2]

    def remove(self, sequence: Sequence) -> None:
        if self._heap[0][2] is sequence:
            heapq.heappop(self._heap)
        else:
            self._heap.remove((*_urgency(sequence), sequence))
            heapq.heapify(self._heap)


def _urgency(sequence: Sequence) -> tuple[int, int]:
    """Smaller is sooner; the number of arrival makes it unique."""
    return (sequence.priority, sequence.number)


def _blocks_for(tokens: int) -> int:
    return -(-tokens // BLOCK_TOKENS)

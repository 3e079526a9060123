"""How a request runs: it waits for a place in the batch, its prompt is computed, then every step adds a token to each answer.

Time comes from the running event loop, so that the same replica can run on a loop whose clock is virtual.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from ias.engine.generation import Answer, Emission
from ias.engine.metrics import EngineMetrics
from ias.engine.prefix_cache import BLOCK_TOKENS, PrefixCache

STEPS_BETWEEN_YIELDS = 16
"""An unpaced replica lets others run this often."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the replica can do, and how fast."""

    tokens_per_second: float
    """Per answer, however many run; 0 is as fast as the machine can."""
    ttft_s: float
    """From the place in the batch to the first token."""
    running_max: int = 256
    waiting_max: int = 4096
    blocks: int = 16_384


@dataclass(frozen=True, slots=True)
class Job:
    """One request: its prompts and the answers that are to grow from them."""

    prompts: Sequence[Sequence[str]]
    answers: Sequence[Answer]
    cache_salt: str | None = None

    @property
    def prompt_tokens(self) -> int:
        """Of all prompts together."""
        return sum(len(prompt) for prompt in self.prompts)

    @property
    def completion_tokens(self) -> int:
        """Generated so far, over all answers."""
        return sum(answer.tokens for answer in self.answers)


@dataclass(frozen=True, slots=True)
class Step:
    """What one step added: the number of an answer and its emission, for each answer that was not finished."""

    emissions: tuple[tuple[int, Emission], ...]
    cached_tokens: int


class Replica:
    """One model on one (imagined) accelerator."""

    def __init__(self, capacity: Capacity, metrics: EngineMetrics) -> None:
        self._capacity = capacity
        self._metrics = metrics
        self._cache = PrefixCache(capacity.blocks)
        self._places = asyncio.Semaphore(capacity.running_max)
        self._running = 0
        self._waiting = 0
        self._tokens_held = 0
        metrics.observe_gauges(lambda: self._running, lambda: self._waiting, self._kv_cache_usage)

    @property
    def is_full(self) -> bool:
        """So many requests wait already that another is to be refused."""
        return self._waiting >= self._capacity.waiting_max

    async def run(self, job: Job) -> AsyncGenerator[Step]:
        """Run a request step by step. Closing the iterator, or cancelling its task, aborts it and frees its place."""
        arrived = asyncio.get_running_loop().time()
        await self._take_place()
        reason = "abort"
        try:
            async for step in self._compute(job, arrived):
                yield step
            reason = "length" if any(answer.finish_reason == "length" for answer in job.answers) else "stop"
        finally:
            self._places.release()
            self._running -= 1
            self._tokens_held -= job.prompt_tokens + job.completion_tokens
            self._record_end(job, reason, asyncio.get_running_loop().time() - arrived)

    async def _take_place(self) -> None:
        self._waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1
        self._running += 1

    async def _compute(self, job: Job, arrived: float) -> AsyncGenerator[Step]:
        clock = asyncio.get_running_loop().time
        cached_tokens = self._prefill(job)
        due = clock() + self._capacity.ttft_s
        step_s = 1 / self._capacity.tokens_per_second if self._capacity.tokens_per_second else 0.0
        number, previous = 0, arrived
        while live := [(index, answer) for index, answer in enumerate(job.answers) if answer.finish_reason is None]:
            if (wait_s := due - clock()) > 0:
                await asyncio.sleep(wait_s)
            elif number % STEPS_BETWEEN_YIELDS == 0:
                await asyncio.sleep(0)
            emissions = tuple((index, answer.advance()) for index, answer in live)
            self._tokens_held += len(live)
            self._metrics.generation_tokens.inc(len(live))
            latency = self._metrics.inter_token_latency_s if number else self._metrics.time_to_first_token_s
            now = clock()
            latency.observe(now - previous)
            number, previous, due = number + 1, now, due + step_s
            yield Step(emissions, cached_tokens)

    def _prefill(self, job: Job) -> int:
        cached_tokens = sum(self._cache.take(prompt, job.cache_salt) for prompt in job.prompts)
        self._tokens_held += job.prompt_tokens
        self._metrics.prompt_tokens.inc(job.prompt_tokens)
        self._metrics.prefix_cache_queries.inc(job.prompt_tokens)
        self._metrics.prefix_cache_hits.inc(cached_tokens)
        return cached_tokens

    def _record_end(self, job: Job, reason: str, duration_s: float) -> None:
        self._metrics.count_finished(reason)
        self._metrics.e2e_latency_s.observe(duration_s)
        self._metrics.request_prompt_tokens.observe(job.prompt_tokens)
        self._metrics.request_generation_tokens.observe(job.completion_tokens)

    def _kv_cache_usage(self) -> float:
        return min(1.0, -(-self._tokens_held // BLOCK_TOKENS) / self._capacity.blocks)

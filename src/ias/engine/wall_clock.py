"""The replica on the wall clock: requests wait for their tokens, one task computes steps for as long as there is work.

Idle, it has no task and no timer. Time comes from the running event loop.
"""

import asyncio
from collections.abc import AsyncGenerator
from collections.abc import Sequence as Several
from dataclasses import dataclass, field

from ias.engine.block_names import BlockNames
from ias.engine.generation import Answer, Emission
from ias.engine.metrics import EngineMetrics, Timings
from ias.engine.replica import Replica, Step
from ias.engine.scheduler import Sequence

STEPS_BETWEEN_YIELDS = 16
"""An unpaced replica lets others run this often."""
LAG_MAX_S = 0.1
"""Steps that end late are made up for, unless the machine was this far behind."""


@dataclass(frozen=True, slots=True)
class Job:
    """One HTTP request: its prompts and the answers that are to grow from them, as many for each prompt."""

    prompts: Several[Several[str]]
    answers: Several[Answer]
    cache_salt: str | None = None
    lora: str | None = None
    priority: int = 0

    @property
    def prompt_tokens(self) -> int:
        """Of all prompts together."""
        return sum(len(prompt) for prompt in self.prompts)

    @property
    def completion_tokens(self) -> int:
        """Generated so far, over all answers."""
        return sum(answer.tokens for answer in self.answers)


@dataclass(frozen=True, slots=True)
class Progress:
    """What one step added: the number of an answer and its emission, for each answer that got a token; and the counts then."""

    emissions: tuple[tuple[int, Emission], ...]
    completion_tokens: int
    cached_tokens: int


class AbortedError(Exception):
    """The replica gave the request up: it went to sleep, or it is broken."""


class WallReplica:
    """One model on one (imagined) accelerator."""

    def __init__(
        self, replica: Replica, metrics: EngineMetrics, *, speed: float = 1.0, waiting_max: int = 4096
    ) -> None:
        self._replica = replica
        self._metrics = metrics
        self._speed = speed
        self._waiting_max = waiting_max
        self._tracks: dict[Sequence, _Track] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._driver: asyncio.Task[None] | None = None
        self._step_end: asyncio.Future[None] | None = None

    @property
    def is_full(self) -> bool:
        """So many requests wait already that another is to be refused."""
        return self._replica.scheduler.waiting >= self._waiting_max

    @property
    def load(self) -> int:
        """Answers under way."""
        return len(self._tracks)

    @property
    def is_asleep(self) -> bool:
        """Paused until it is woken."""
        return self._replica.paused

    async def run(self, job: Job) -> AsyncGenerator[Progress]:
        """Run a request. Closing the iterator, or cancelling its task, aborts it and frees its blocks at once.

        Raises:
            AbortedError: the replica gave it up.
        """
        run = _Run(job)
        tracks = self._make_tracks(run, asyncio.get_running_loop().time())
        try:
            for track in tracks:
                self._tracks[track.sequence] = track
                self._idle.clear()
                self._replica.submit(track.sequence)
            self._drive_on()
            while not run.is_done:
                for progress in await run.take():
                    yield progress
        finally:
            for track in tracks:
                self._give_up(track)

    async def wait_until_idle(self) -> None:
        """Until nothing is under way."""
        await self._idle.wait()

    def pause(self, *, abort: bool) -> None:
        """Stop computing. What is under way is given up, or put back into the queue to be computed again; the cache is lost."""
        self._replica.paused = True
        self._replica.abandon()
        self._end_step()
        if abort:
            for track in list(self._tracks.values()):
                track.run.fail(AbortedError("the engine went to sleep"))
                self._give_up(track)
        self._replica.scheduler.preempt_all()
        self._replica.scheduler.pool.forget()

    def resume(self) -> None:
        """Go on computing."""
        self._replica.paused = False
        if self._tracks:
            self._drive_on()

    def _make_tracks(self, run: "_Run", arrived_s: float) -> list["_Track"]:
        """One for each answer; answers to the same prompt begin with the same blocks."""
        job = run.job
        tracks = []
        each = len(job.answers) // len(job.prompts)
        for number, prompt in enumerate(job.prompts):
            names = BlockNames(job.cache_salt, job.lora)
            hashes = names.extend(prompt)
            for index in range(number * each, (number + 1) * each):
                answer = job.answers[index]
                sequence = Sequence(
                    len(prompt), answer.limits.tokens_max, list(hashes), priority=job.priority, lora=job.lora
                )
                timings = Timings(arrived_s=arrived_s)
                tracks.append(_Track(run, index, answer, sequence, names.copy(), timings))
        run.sequences = [track.sequence for track in tracks[::each]]
        return tracks

    def _drive_on(self) -> None:
        if self._driver is None or self._driver.done():
            self._driver = asyncio.get_running_loop().create_task(self._drive())

    async def _drive(self) -> None:
        """Compute steps until there is nothing to do."""
        try:
            await self._compute()
        except Exception as error:  # a defect of the engine: who waits is told, and the traceback goes to the log
            for track in self._tracks.values():
                track.run.fail(AbortedError(f"the engine is broken: {error}"))
            raise

    async def _compute(self) -> None:
        loop = asyncio.get_running_loop()
        begins_s, number = loop.time(), 0
        while step := self._replica.start(begins_s):
            self._mark_started(step, loop.time())
            ends_s = begins_s + (step.ends_s - step.started_s) / self._speed
            if ends_s > loop.time():
                await self._wait_for_end(ends_s)
            elif number % STEPS_BETWEEN_YIELDS == 0:
                await asyncio.sleep(0)
            number += 1
            now_s = loop.time()
            self._deliver(self._replica.complete(), step, now_s)
            begins_s = ends_s if 0 <= now_s - ends_s < LAG_MAX_S else now_s

    async def _wait_for_end(self, ends_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._step_end = loop.create_future()
        timer = loop.call_at(ends_s, self._end_step)
        try:
            await self._step_end
        finally:
            timer.cancel()
            self._step_end = None

    def _end_step(self) -> None:
        if self._step_end is not None and not self._step_end.done():
            self._step_end.set_result(None)

    def _mark_started(self, step: Step, now_s: float) -> None:
        for sequence, _ in step.plan.chunks:
            timings = self._tracks[sequence].timings
            if timings.started_s is None:
                timings.started_s = now_s
                self._metrics.count_prompt(sequence.prompt_tokens, sequence.cached_tokens or 0)

    def _deliver(self, yielding: Several[Sequence], step: Step, now_s: float) -> None:
        """Each sequence's token goes to its request; answers that have ended leave the batch."""
        added: dict[_Run, list[tuple[int, Emission]]] = {}
        for sequence in yielding:
            track = self._tracks[sequence]
            emission = track.advance()
            self._metrics.observe_token(track.timings, now_s)
            if emission.finish_reason:
                self._leave(track, emission.finish_reason, now_s)
            added.setdefault(track.run, []).append((track.index, emission))
        for run, emissions in added.items():
            run.put(tuple(emissions))
        self._metrics.count_step(step.plan.prefill_tokens + step.plan.decodes, len(yielding))

    def _leave(self, track: "_Track", reason: str, now_s: float) -> None:
        del self._tracks[track.sequence]
        self._replica.scheduler.finish(track.sequence)
        self._metrics.count_finished(
            reason,
            track.timings,
            now_s,
            prompt_tokens=track.sequence.prompt_tokens,
            generated=track.answer.tokens,
            tokens_max=track.answer.limits.tokens_max,
        )
        if not self._tracks:
            self._idle.set()

    def _give_up(self, track: "_Track") -> None:
        """Abort an answer that has not ended; a step that now computes for nobody ends at once."""
        if track.sequence not in self._tracks:
            return
        self._leave(track, "abort", asyncio.get_running_loop().time())
        step = self._replica.step
        if step is not None and all(sequence.state == "finished" for sequence, _ in step.plan.chunks):
            self._end_step()


class _Run:
    """The requests's side of a job: what has been generated and not yet been taken."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.sequences: list[Sequence] = []
        """The first for each prompt."""
        self._ready: list[Progress] = []
        self._filled = asyncio.Event()
        self._failure: Exception | None = None

    @property
    def is_done(self) -> bool:
        """Everything has been generated and taken."""
        return not self._ready and all(answer.finish_reason for answer in self.job.answers)

    async def take(self) -> list[Progress]:
        """What has been generated; waits where that is nothing."""
        await self._filled.wait()
        if self._failure is not None:
            raise self._failure
        self._filled.clear()
        ready, self._ready = self._ready, []
        return ready

    def put(self, emissions: tuple[tuple[int, Emission], ...]) -> None:
        """A step has added something."""
        cached_tokens = sum(sequence.cached_tokens or 0 for sequence in self.sequences)
        self._ready.append(Progress(emissions, self.job.completion_tokens, cached_tokens))
        self._filled.set()

    def fail(self, error: Exception) -> None:
        """It will not go on."""
        self._failure = error
        self._filled.set()


@dataclass(slots=True)
class _Track:
    """One answer under way."""

    run: _Run
    index: int
    answer: Answer
    sequence: Sequence
    names: BlockNames
    timings: Timings = field(default_factory=Timings)

    def advance(self) -> Emission:
        """Generate the token that the step yielded."""
        emission = self.answer.advance()
        self.sequence.hashes += self.names.extend((self.answer.last_piece,))
        return emission

"""One replica as a machine without a clock of its own: it is told the time, and tells when its step ends.

Both clocks drive it. `wall_clock.py` sleeps until a step ends, one step at a time; `simulation/cluster.py` jumps there, and lets
runs of like decode steps pass at once, shortening a run where something arrives in it (`cut`).
"""

import math
from dataclasses import dataclass

from ias.engine.scheduler import Limits, Plan, Scheduler, Sequence
from ias.engine.step_time import StepTime


@dataclass(slots=True)
class Step:
    """A step, or a run of like steps, that is being computed."""

    plan: Plan
    started_s: float
    steps: int
    first_s: float
    growth_s: float

    @property
    def ends_s(self) -> float:
        """When its last step is done."""
        return self.end_of_s(self.steps)

    def end_of_s(self, steps: int) -> float:
        """When so many of its steps are done."""
        return self.started_s + steps * self.first_s + self.growth_s * (steps * (steps - 1) / 2)


class Replica:
    """A scheduler, a cache and a model of time."""

    def __init__(self, limits: Limits, step_time: StepTime) -> None:
        self.scheduler = Scheduler(limits)
        self.step_time = step_time
        self.slowness = 1.0
        """Steps take so many times as long: a fault."""
        self.paused = False
        """Asleep: nothing is started."""
        self.step: Step | None = None

    def submit(self, sequence: Sequence) -> None:
        """Queue a sequence.

        Raises:
            ValueError: it does not fit into the cache.
        """
        self.scheduler.add(sequence)

    def start(self, now_s: float, steps_max: int = 1) -> Step | None:
        """Begin the next step; None where there is nothing to do."""
        if self.paused:
            return None
        plan = self.scheduler.plan(steps_max)
        if plan is None:
            return None
        first_s = self.step_time.first_step_s(plan) * self.slowness
        growth_s = self.step_time.growth_s(plan) * self.slowness
        self.step = Step(plan, now_s, plan.steps_max, first_s, growth_s)
        return self.step

    def cut(self, now_s: float) -> None:
        """Something has arrived: a run of steps ends with the one that is under way now."""
        step = self.step
        if step is None or step.steps == 1 or step.first_s <= 0:
            return
        # The smallest n with end_of(n) >= now: near the root of growth/2·n² + (first - growth/2)·n = now - started.
        elapsed = now_s - step.started_s
        half = step.growth_s / 2
        linear = step.first_s - half
        root = 2 * elapsed / (linear + math.sqrt(linear * linear + 4 * half * elapsed)) if elapsed > 0 else 0
        done = max(1, math.floor(root))
        while step.end_of_s(done) < now_s:
            done += 1
        step.steps = min(step.steps, done)

    def complete(self) -> list[Sequence]:
        """The step is done: the sequences that got a token from each of its steps."""
        step = self.step
        if step is None:
            return []
        self.step = None
        return self.scheduler.complete(step.plan, step.steps)

    def abandon(self) -> None:
        """Stop computing: nobody waits for the step any more."""
        self.step = None

    @property
    def kv_cache_usage(self) -> float:
        """Share of the blocks in use; what is only cached counts as free."""
        return self.scheduler.pool.used / self.scheduler.pool.total

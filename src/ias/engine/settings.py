"""What one replica serves, how fast, and how it misbehaves."""

from dataclasses import dataclass, field

from ias.engine.blocks import BLOCK_TOKENS
from ias.engine.faults import Faults
from ias.engine.metrics import MetricNames
from ias.engine.replica import Replica
from ias.engine.scheduler import Limits, Policy
from ias.engine.step_time import Calibrated, Pace, find_profile

NUM_GPU_BLOCKS_DEFAULT = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Names and defaults are vLLM's where it has the option."""

    model: str
    loras: tuple[str, ...] = ()
    """Adapters that are loaded from the start; each is a model name of its own."""
    seed: int = 0
    context_length: int = 8192
    api_key: str | None = field(default=None, repr=False)
    """What `Authorization: Bearer` must carry under /v1; None asks for nothing."""

    tokens_per_second: float = 50.0
    """Per answer; 0 is as fast as the machine can."""
    ttft_ms: float = 50.0
    profile: str | None = None
    """A calibrated model of time in place of the two above: MODEL@ACCELERATOR, see step_time.py."""
    speed: float = 1.0
    """The wall clock runs so many times as fast as the model of time."""

    max_num_batched_tokens: int = 2048
    max_num_seqs: int = 256
    num_gpu_blocks: int | None = None
    """None: what the profile's accelerator has room for, or NUM_GPU_BLOCKS_DEFAULT."""
    long_prefill_token_threshold: int = 0
    enable_prefix_caching: bool = True
    scheduling_policy: Policy = "fcfs"
    waiting_max: int = 4096
    """Requests that may wait; more are refused with 503."""

    startup_s: float = 0.0
    """From the start of the process until it listens, as while weights are loaded."""
    drain_timeout_s: float = 5.0
    """How long answers under way may take to end after SIGTERM."""
    wake_s: float = 0.0
    """How long `/wake_up` takes."""
    metric_names: MetricNames = "current"
    dev_mode: bool = False
    """Whether /sleep, /wake_up, /reset_prefix_cache and the loading of adapters are open, as with VLLM_SERVER_DEV_MODE=1."""
    admin: bool = False
    """Whether faults can be set at run time, at /admin/faults."""
    faults: Faults = field(default_factory=Faults)
    """Those that hold from the start."""


def build_replica(settings: EngineSettings) -> Replica:
    """The machine behind the settings.

    Raises:
        ValueError: the settings contradict each other.
    """
    step_time: Pace | Calibrated
    if settings.profile is None:
        step_time, blocks = Pace(settings.tokens_per_second, settings.ttft_ms / 1000), NUM_GPU_BLOCKS_DEFAULT
    else:
        step_time = find_profile(settings.profile)
        blocks = step_time.count_blocks()
    if settings.num_gpu_blocks is not None:
        blocks = settings.num_gpu_blocks
    if settings.context_length > blocks * BLOCK_TOKENS:
        raise ValueError(
            f"The model's max seq len ({settings.context_length}) is larger than the maximum number of tokens that can be "
            f"stored in KV cache ({blocks * BLOCK_TOKENS})"
        )
    limits = Limits(
        max_num_batched_tokens=settings.max_num_batched_tokens,
        max_num_seqs=settings.max_num_seqs,
        num_gpu_blocks=blocks,
        long_prefill_token_threshold=settings.long_prefill_token_threshold,
        enable_prefix_caching=settings.enable_prefix_caching,
        scheduling_policy=settings.scheduling_policy,
    )
    return Replica(limits, step_time)

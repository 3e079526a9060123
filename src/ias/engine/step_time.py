"""How long a step takes: a fixed pace for development, or a model of one accelerator calibrated on published measurements.

The calibrated model (README.md, "Calibration", has the figures and their sources):

    step = fixed + per_sequence · decodes + prefill_tokens · 2 · parameters / (mfu · flops)
         + weight_bytes / (weight_efficiency · bandwidth) + context_tokens · kv_bytes_per_token / (kv_efficiency · bandwidth)

Its form is that of BLIS (inference-sim/inference-sim): a step reads the weights once, every decode reads its keys and values, and
prompt tokens cost arithmetic. Attention's own arithmetic is not modelled; below 8k tokens of context it is a tenth of the rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from ias.engine.blocks import BLOCK_TOKENS
from ias.engine.scheduler import Plan

GPU_MEMORY_UTILIZATION = 0.9
"""Share of the accelerator's memory that weights and KV cache take: vLLM's default when these figures were measured."""


class StepTime(Protocol):
    """Seconds, for what a plan says."""

    @property
    def request_overhead_s(self) -> float:
        """What a request costs before it reaches the scheduler: HTTP, tokenizer, process boundaries."""
        ...

    def first_step_s(self, plan: Plan) -> float:
        """The first step of the plan."""
        ...

    def growth_s(self, plan: Plan) -> float:
        """What each further step of a run of decodes takes more than the one before."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """The same time for every step: `ttft_s` with a prompt in it, else one token's share of a second."""

    tokens_per_second: float = 50.0
    """Of each answer; 0 is as fast as the machine can."""
    ttft_s: float = 0.05
    request_overhead_s: float = 0.0

    def first_step_s(self, plan: Plan) -> float:
        """See StepTime."""
        decode_s = 1 / self.tokens_per_second if self.tokens_per_second and plan.decodes else 0.0
        return max(self.ttft_s, decode_s) if plan.prefill_tokens else decode_s

    def growth_s(self, plan: Plan) -> float:  # noqa: ARG002  # StepTime's signature
        """See StepTime."""
        return 0.0


@dataclass(frozen=True, slots=True)
class Model:
    """What a model's step depends on."""

    parameters: float
    weight_bytes: float
    kv_bytes_per_token: int
    """Keys and values: 2 · layers · KV heads · head size · 2 bytes."""


@dataclass(frozen=True, slots=True)
class Accelerator:
    """What a data sheet says of one device."""

    memory_bytes: float
    bandwidth: float
    """Bytes a second."""
    flops: float
    """Dense bf16 operations a second."""


MODELS: Mapping[str, Model] = {
    "llama-3.1-8b": Model(8.03e9, 16.06e9, 2 * 32 * 8 * 128 * 2),
    "llama-3.1-70b": Model(70.6e9, 141.2e9, 2 * 80 * 8 * 128 * 2),
    "qwen2.5-7b": Model(7.62e9, 15.24e9, 2 * 28 * 4 * 128 * 2),
    "qwen3-32b": Model(32.8e9, 65.6e9, 2 * 64 * 8 * 128 * 2),
}
"""Sizes from the models' published configurations, in bf16."""

ACCELERATORS: Mapping[str, Accelerator] = {
    "h100": Accelerator(85.0e9, 3.35e12, 989e12),
    "a100-80gb": Accelerator(85.0e9, 2.039e12, 312e12),
    "a100-40gb": Accelerator(42.4e9, 1.555e12, 312e12),
    "l40s": Accelerator(48.3e9, 0.864e12, 362e12),
    "l4": Accelerator(24.2e9, 0.300e12, 121e12),
}
"""From NVIDIA's data sheets (SXM where there are several)."""


@dataclass(frozen=True, slots=True)
class Calibrated:
    """One model on one or more accelerators (tensor parallel)."""

    model: Model
    accelerator: Accelerator
    accelerators: int = 1
    fixed_s: float = 0.4e-3
    per_sequence_s: float = 6e-6
    mfu: float = 0.55
    weight_efficiency: float = 0.79
    kv_efficiency: float = 0.51
    request_overhead_s: float = 4.5e-3

    def first_step_s(self, plan: Plan) -> float:
        """See StepTime."""
        return (
            self.fixed_s
            + self.per_sequence_s * plan.decodes
            + plan.prefill_tokens * 2 * self.model.parameters / (self.mfu * self.accelerator.flops * self.accelerators)
            + self.model.weight_bytes / (self.weight_efficiency * self._bandwidth)
            + plan.context_tokens * self._read_s_per_token
        )

    def growth_s(self, plan: Plan) -> float:
        """See StepTime: every step makes every sequence's context one token longer."""
        return plan.decodes * self._read_s_per_token

    def count_blocks(self) -> int:
        """Blocks of KV cache that fit beside the weights.

        Raises:
            ValueError: not even the weights fit.
        """
        room = self.accelerator.memory_bytes * self.accelerators * GPU_MEMORY_UTILIZATION - self.model.weight_bytes
        blocks = int(room // (self.model.kv_bytes_per_token * BLOCK_TOKENS))
        if blocks < 1:
            raise ValueError("the model's weights do not fit into the accelerators' memory")
        return blocks

    @property
    def _bandwidth(self) -> float:
        return self.accelerator.bandwidth * self.accelerators

    @property
    def _read_s_per_token(self) -> float:
        return self.model.kv_bytes_per_token / (self.kv_efficiency * self._bandwidth)


def find_profile(name: str) -> Calibrated:
    """A profile by name, such as `llama-3.1-8b@h100` or `llama-3.1-70b@4xh100`.

    Raises:
        ValueError: the model or the accelerator is not known, or the model does not fit.
    """
    model_name, _, place = name.partition("@")
    count, times, accelerator_name = place.partition("x")
    if not (times and count.isdigit()):
        count, accelerator_name = "1", place
    if model_name not in MODELS or accelerator_name not in ACCELERATORS:
        raise ValueError(
            f"{name!r} is no profile; it is MODEL@ACCELERATOR or MODEL@COUNTxACCELERATOR with a model of "
            f"{', '.join(MODELS)} and an accelerator of {', '.join(ACCELERATORS)}"
        )
    profile = Calibrated(MODELS[model_name], ACCELERATORS[accelerator_name], int(count))
    profile.count_blocks()
    return profile

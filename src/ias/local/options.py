"""What `ias up` was asked for."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

GATEWAY_PORT = 8000
MANAGEMENT_PORT = 8080
DEFAULT_MODEL = "ias-sim"
DEFAULT_CONTEXT_LENGTH = 32768


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """An OpenAI-compatible server that takes the built-in engine's place."""

    url: str
    """Base URL including the version path, without a trailing slash."""
    api_key: str | None = None
    engine: Literal["vllm", "openai"] = "openai"
    """What serves there: vLLM can be asked for more than others."""


@dataclass(frozen=True, kw_only=True)
class UpOptions:
    """The platform to start. Ports are decided already; `ephemeral` data is deleted at the end."""

    data_root: Path
    host: str = "127.0.0.1"
    port: int = GATEWAY_PORT
    management_port: int = MANAGEMENT_PORT
    workers: int = 1
    model: str = DEFAULT_MODEL
    context_length: int = DEFAULT_CONTEXT_LENGTH
    upstream: Upstream | None = None
    ephemeral: bool = False

    def to_json(self) -> str:
        """For handing them to a detached supervisor. It may hold the upstream's key: never put it on a command line."""
        return json.dumps({**asdict(self), "data_root": str(self.data_root)})

    @classmethod
    def from_json(cls, text: str) -> "UpOptions":
        """What `to_json` wrote."""
        fields = json.loads(text)
        upstream = fields.pop("upstream")
        return cls(
            **{**fields, "data_root": Path(fields["data_root"])}, upstream=Upstream(**upstream) if upstream else None
        )


def default_workers() -> int:
    """Half the processors, for the other half is the engine's and the servers'; at most four."""
    return max(1, min(4, len(os.sched_getaffinity(0)) // 2))

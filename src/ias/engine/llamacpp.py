"""Real weights on a CPU: llama.cpp's own server on a GGUF file, in this process.

The server is the one that `llama-server` runs, from the wheels of xllamacpp (extra `llamacpp`), so that nothing has to be compiled.
It speaks OpenAI's API with usage, cached tokens included, and has /health, /v1/models and /metrics (names of its own, not vLLM's).
"""

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import xllamacpp


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaSettings:
    """What is served, and with how much of the machine."""

    file: Path
    model: str
    """The name under which it is served."""
    context_length: int = 4096
    """Tokens of each answer's context."""
    parallel: int = 4
    """Answers computed at a time; each has a context of its own in memory."""
    threads: int | None = None
    """None is as many as llama.cpp thinks right."""
    api_key: str | None = None


def serve(host: str, port: int, settings: LlamaSettings, announce: Callable[[str], None]) -> None:
    """Load, tell the URL, and serve until SIGTERM or SIGINT. Answers under way then are cut off.

    Raises:
        OSError: the file cannot be read, or nothing can listen there.
        ValueError: llama.cpp does not take the file.
    """
    with settings.file.open("rb") as model:
        if model.read(4) != b"GGUF":
            raise ValueError(f"{settings.file} is no GGUF file")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    try:
        server = xllamacpp.Server(_parameters(host, port, settings))
    except RuntimeError as error:
        raise ValueError(f"llama.cpp cannot serve {settings.file} at {host}:{port}: {error}") from error
    announce(server.listening_address)
    ended.wait()
    del server  # its destructor ends its threads


def _parameters(host: str, port: int, settings: LlamaSettings) -> xllamacpp.CommonParams:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(settings.file)
    parameters.model_alias = {settings.model}
    parameters.hostnames = [host]
    parameters.port = port
    parameters.n_parallel = settings.parallel
    parameters.n_ctx = settings.context_length * settings.parallel  # shared out between them
    parameters.endpoint_metrics = True
    parameters.ui = False
    if settings.threads is not None:
        parameters.cpuparams.n_threads = settings.threads
    if settings.api_key is not None:
        parameters.api_keys = [settings.api_key]
    return parameters

"""`ias engine`: inference engines to put behind the gateway."""

import importlib
from pathlib import Path
from typing import Any

import click

from ias.cli.failures import CommandError


@click.group()
def engine() -> None:
    """Run an inference engine in the foreground."""


def _listening(command: Any) -> Any:
    """The options of every engine."""
    for option in reversed(
        (
            click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on."),
            click.option(
                "--port",
                type=click.IntRange(0, 65535),
                default=8100,
                show_default=True,
                help="Port; 0 takes a free one.",
            ),
        )
    ):
        command = option(command)
    return command


@engine.command()
@_listening
@click.option("--model", default="ias-sim", show_default=True, help="The model's name.")
@click.option("--lora", "loras", multiple=True, metavar="NAME", help="An adapter to serve as well; may be repeated.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed and prompt give the same text.")
@click.option(
    "--tokens-per-second",
    type=click.FloatRange(0),
    default=50.0,
    show_default=True,
    help="Pace of one answer; 0 is as fast as the machine can.",
)
@click.option("--ttft-ms", type=click.FloatRange(0), default=50.0, show_default=True, help="Time to the first token.")
@click.option(
    "--profile",
    metavar="MODEL@GPU",
    help="Take the time that a model takes on a GPU, such as llama-3.1-8b@h100 or llama-3.1-70b@4xh100.",
)
@click.option(
    "--speed", type=click.FloatRange(0.01, 1000), default=1.0, show_default=True, help="Run so many times as fast."
)
@click.option("--context-length", type=click.IntRange(1), default=8192, show_default=True, help="Tokens of context.")
@click.option(
    "--max-num-seqs", type=click.IntRange(1), default=256, show_default=True, help="Answers computed at a time."
)
@click.option(
    "--max-num-batched-tokens", type=click.IntRange(1), default=2048, show_default=True, help="Tokens per step."
)
@click.option(
    "--num-gpu-blocks",
    type=click.IntRange(1),
    help="KV cache, in blocks of 16 tokens.  [default: what the profile's GPU holds, or 16384]",
)
@click.option(
    "--enable-prefix-caching/--no-enable-prefix-caching",
    default=True,
    show_default=True,
    help="Keep prompts' blocks for prompts that begin alike.",
)
@click.option(
    "--scheduling-policy",
    type=click.Choice(["fcfs", "priority"]),
    default="fcfs",
    show_default=True,
    help="Whether requests may carry a priority.",
)
@click.option(
    "--max-waiting",
    "waiting_max",
    type=click.IntRange(1),
    default=4096,
    show_default=True,
    help="Requests that may queue; further ones get 503.",
)
@click.option(
    "--startup-s", type=click.FloatRange(0), default=0.0, show_default=True, help="Load for so long before listening."
)
@click.option(
    "--drain-timeout-s",
    type=click.FloatRange(0),
    default=5.0,
    show_default=True,
    help="Time for answers under way to end after SIGTERM.",
)
@click.option(
    "--metric-names",
    type=click.Choice(["current", "both", "old"]),
    default="current",
    show_default=True,
    help="vLLM's spellings since 0.10, of 0.9, or before.",
)
@click.option("--api-key", envvar="VLLM_API_KEY", help="Ask for this key under /v1.  [env: VLLM_API_KEY]")
@click.option("--dev-mode", is_flag=True, help="Open /sleep, /wake_up and the loading of adapters, as vLLM's does.")
@click.option("--admin", is_flag=True, help="Let faults be set at run time: GET, PUT, DELETE /admin/faults.")
@click.option(
    "--faults",
    metavar="JSON",
    help='What goes wrong, such as {"error": {"status": 503, "rate": 0.1}, "slow": 3}; see src/ias/engine/README.md.',
)
@click.option("--access-log/--no-access-log", default=True, show_default=True, help="One JSON line per request.")
def sim(*, host: str, port: int, access_log: bool, faults: str | None, **options: Any) -> None:
    """A simulated vLLM replica: deterministic text, honest counts, batching, KV cache and latencies as on a GPU."""
    settings_type = importlib.import_module("ias.engine.settings").EngineSettings
    decode_faults = importlib.import_module("ias.engine.faults").decode_faults
    try:
        settings = settings_type(**options, faults=decode_faults(faults or "{}"))
        importlib.import_module("ias.engine.process").serve(host, port, settings, access_log=access_log)
    except ValueError as error:
        raise CommandError(str(error), advice="`ias engine sim --help` lists the options") from error


@engine.command()
@_listening
@click.option(
    "--model",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="The weights: a GGUF file.",
)
@click.option("--name", help="The model's name.  [default: the file's, without .gguf]")
@click.option("--context-length", type=click.IntRange(1), default=4096, show_default=True, help="Tokens of context.")
@click.option("--parallel", type=click.IntRange(1, 64), default=4, show_default=True, help="Answers at a time.")
@click.option("--threads", type=click.IntRange(1), help="Threads that compute.  [default: llama.cpp's choice]")
@click.option("--api-key", envvar="LLAMA_API_KEY", help="Ask for this key.  [env: LLAMA_API_KEY]")
def llamacpp(*, host: str, port: int, file: Path, name: str | None, **options: Any) -> None:
    """Real weights on this machine's CPU: llama.cpp's server on a GGUF file (extra `llamacpp`)."""
    try:
        module = importlib.import_module("ias.engine.llamacpp")
    except ModuleNotFoundError as error:
        if error.name != "xllamacpp":
            raise
        raise CommandError("llama.cpp is not installed", advice="`pip install xllamacpp` installs it") from error
    settings = module.LlamaSettings(file=file, model=name or file.stem, **options)
    try:
        module.serve(host, port, settings, lambda url: click.echo(f"{settings.model} at {url}/v1"))
    except (OSError, ValueError) as error:
        raise CommandError(str(error)) from error

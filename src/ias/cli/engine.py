"""`ias engine`: inference engines to put behind the gateway."""

import importlib

import click


@click.group()
def engine() -> None:
    """Run an inference engine in the foreground."""


@engine.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8100, show_default=True, help="Port; 0 takes a free one."
)
@click.option("--model", default="ias-sim", show_default=True, help="The model's name.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed and prompt give the same text.")
@click.option(
    "--tokens-per-second",
    type=click.FloatRange(0),
    default=50.0,
    show_default=True,
    help="Pace of one answer; 0 is as fast as the machine can.",
)
@click.option("--ttft-ms", type=click.FloatRange(0), default=50.0, show_default=True, help="Time to the first token.")
@click.option("--context-length", type=click.IntRange(1), default=8192, show_default=True, help="Tokens of context.")
@click.option("--access-log/--no-access-log", default=True, show_default=True, help="One JSON line per request.")
def sim(
    *,
    host: str,
    port: int,
    model: str,
    seed: int,
    tokens_per_second: float,
    ttft_ms: float,
    context_length: int,
    access_log: bool,
) -> None:
    """The built-in engine: OpenAI-shaped, deterministic text, honest usage counts."""
    importlib.import_module("ias.engine.server").serve(
        host,
        port,
        model=model,
        seed=seed,
        tokens_per_second=tokens_per_second,
        ttft_ms=ttft_ms,
        context_length=context_length,
        access_log=access_log,
    )

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
def sim(host: str, port: int, model: str) -> None:
    """The built-in engine: OpenAI-shaped, deterministic text, honest usage counts."""
    importlib.import_module("ias.engine.server").serve(host=host, port=port, model=model)

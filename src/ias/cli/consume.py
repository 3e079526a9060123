"""`ias consume`: event consumers in the foreground."""

import importlib

import click

from ias.cli.serve import build_part, configure_logging, read_settings

SERVICES = ("billing", "analytics", "identity")


@click.command()
@click.argument("services", nargs=-1, required=True, type=click.Choice(SERVICES))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of /health, /ready and /metrics.")
@click.option("--port", type=click.IntRange(0, 65535), default=8006, show_default=True, help="Their port.")
def consume(services: tuple[str, ...], host: str, port: int) -> None:
    """Run the event consumers of services in the foreground, in one process. SIGTERM lets the message in hand finish."""
    settings = read_settings(importlib.import_module("ias.kit.settings").ProcessSettings)
    wanted = list(dict.fromkeys(services))
    configure_logging(f"consumers-{'-'.join(wanted)}", settings)
    consumers = {service: build_part(f"ias.{service}.wiring", "build_consumer") for service in wanted}
    importlib.import_module("ias.cli.consumer_process").run_consumers(consumers, host=host, port=port)

"""`ias consume`: event consumers in the foreground."""

import asyncio
import importlib
import signal
from typing import Any

import click

from ias.cli.failures import CommandError
from ias.cli.serve import build_part, configure_logging, read_settings

SERVICES = ("billing", "analytics")


@click.command()
@click.argument("services", nargs=-1, required=True, type=click.Choice(SERVICES))
def consume(services: tuple[str, ...]) -> None:
    """Run the event consumers of services in the foreground, in one process. SIGTERM lets the current batch finish."""
    settings = read_settings(importlib.import_module("ias.kit.settings").ProcessSettings)
    wanted = list(dict.fromkeys(services))
    configure_logging(f"consumers-{'-'.join(wanted)}", settings)
    consumers = {service: build_part(f"ias.{service}.wiring", "build_consumer") for service in wanted}
    importlib.import_module("uvloop").run(_run(consumers))


async def _run(consumers: dict[str, Any]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    running = {asyncio.create_task(consumer.run(stop)): name for name, consumer in consumers.items()}
    ended, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    asked = stop.is_set()
    stop.set()
    await asyncio.gather(*running, return_exceptions=True)
    failed = [(running[task], task.exception()) for task in running if task.exception()]
    if failed or not asked:
        name, error = failed[0] if failed else (running[next(iter(ended))], None)
        raise CommandError(f"the consumer of {name} ended" + (f" ({type(error).__name__}: {error})" if error else ""))

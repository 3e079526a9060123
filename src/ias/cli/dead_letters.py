"""`ias dead-letters`: what consumers set aside because it could not be booked, and how it is booked after all."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, BinaryIO

import click
from aiormq.exceptions import AMQPError
from redis.exceptions import RedisError

from ias.cli.failures import CommandError
from ias.cli.serve import explained_settings
from ias.contracts.events import TOPIC_GROUPS
from ias.kit import bus
from ias.kit.settings import BusSettings

_SHOWN_MAX = 1_000
_ALL = 1_000_000_000

_limit_option = click.option("--limit", type=click.IntRange(1), default=_ALL, help="At most this many.  [default: all]")


def _of_a_group(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option("--topic", default="usage_recorded", show_default=True, help="The kind of event.")(command)
    return click.option("--group", required=True, help="Whose dead letters: billing, for example.")(command)


@click.group("dead-letters")
def dead_letters() -> None:
    """Messages that a consumer could not book and set aside, with the reason.

    Reads IAS_BUS_URL. Replaying is safe at any time and any number of times: every record counts once.
    """


@dead_letters.command("list")
@_of_a_group
@click.option("--limit", type=click.IntRange(1, _SHOWN_MAX), default=50, show_default=True, help="At most this many.")
def list_dead_letters(topic: str, group: str, limit: int) -> None:
    """Show the oldest ones: id, size and reason."""

    async def show(letters: bus.DeadLetters) -> str:
        shown = 0
        async for letter in letters.read(limit):
            click.echo(f"{letter.message_id}  {len(letter.body):>8} bytes  {letter.reason}")
            shown += 1
        count = await letters.count()
        return f"{count} set aside by {group} of {topic}" + (f", {shown} shown" if shown < count else "")

    click.echo(_run(topic, group, show), err=True)


@dead_letters.command()
@_of_a_group
@_limit_option
def replay(topic: str, group: str, limit: int) -> None:
    """Give them to their consumer again.

    After the consumer was upgraded, say, or what a message lacked was added. What cannot be booked again comes back here.
    """
    click.echo(f"{_run(topic, group, lambda letters: letters.replay(limit))} replayed")


@dead_letters.command()
@_of_a_group
@_limit_option
@click.option(
    "--to", "file", type=click.File("ab"), required=True, help="Where they are kept: appended, one message a line."
)
def remove(topic: str, group: str, limit: int, file: BinaryIO) -> None:
    """Take them off the bus for good, each only after FILE has it."""

    def keep(letter: bus.DeadLetter) -> None:
        try:
            file.write(letter.body.replace(b"\n", b" ") + b"\n")  # JSON has no bare line breaks within its texts
            file.flush()
        except OSError as error:
            raise CommandError(f"{file.name} cannot be written ({error.strerror}); what is not in it stays") from error

    click.echo(f"{_run(topic, group, lambda letters: letters.remove(limit, keep))} removed")


def _run(topic: str, group: str, work: Callable[[bus.DeadLetters], Awaitable[Any]]) -> Any:
    if group not in TOPIC_GROUPS.get(topic, ()):
        known = "; ".join(f"of {name}: {', '.join(groups)}" for name, groups in TOPIC_GROUPS.items())
        raise CommandError(f"{group} is no consumer of {topic}", advice=f"there are, {known}")
    with explained_settings():
        url = BusSettings().bus_url.get_secret_value()

    logging.getLogger("aiormq").addHandler(logging.NullHandler())  # what it has to say, the exception says too

    async def open_and_work() -> Any:
        async with bus.open_dead_letters(url, topic, group) as letters:
            return await work(letters)

    try:
        return asyncio.run(open_and_work())
    except bus.BusFullError as error:
        raise CommandError(
            f"the queue {error} is full", advice="let its consumer catch up and run this again"
        ) from error
    except (OSError, AMQPError, RedisError) as error:
        raise CommandError(f"the bus does not answer ({type(error).__name__})", advice="check IAS_BUS_URL") from error

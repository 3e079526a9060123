"""What a database said no with, as one line that names the setting and what to do. The setting's value is never shown."""

import socket
from collections.abc import Iterator

import asyncpg
from alembic.util import CommandError as RevisionError

from ias.cli.failures import FAILED, UNAVAILABLE, CommandError
from ias.local.typed_command import typed

_SAYS = {
    "3D000": ("does not exist on its server", "create it with CREATE DATABASE, or correct the setting", FAILED),
    "28000": ("is closed to this user", "correct the user and the password in the setting", FAILED),
    "28P01": ("is closed to this user", "correct the user and the password in the setting", FAILED),
    "42501": ("does not let its user do this", "make the user its owner", FAILED),
    "42P01": ("does not have the current schema", "run `{migrate}` first", FAILED),
    "42703": ("does not have the current schema", "run `{migrate}` first", FAILED),
    "53300": ("has no connection left", "end some, or raise max_connections there", UNAVAILABLE),
    "57P03": ("is starting or stopping", "try again in a moment", UNAVAILABLE),
}
"""By SQLSTATE: what is to be said of the database, what to do, and the exit code."""

_CHECK = "check that PostgreSQL runs there, and correct the setting if it does not"


def explain_database_failure(service: str, error: BaseException) -> CommandError | None:
    """The line for a failure that the person at the keyboard can act on; None for any other."""
    found = next(filter(None, map(_find_words, _chain(error))), None)
    if found is None:
        return None
    what, advice, exit_code = found
    return CommandError(
        f"the database of {service} (IAS_{service.upper()}_DATABASE_URL) {what}",
        advice=advice.format(migrate=typed("migrate", service)),
        exit_code=exit_code,
    )


def _find_words(error: BaseException) -> tuple[str, str, int] | None:
    if isinstance(error, asyncpg.PostgresError):
        return _SAYS.get(error.sqlstate or "")
    if isinstance(error, asyncpg.InterfaceError):
        return "cannot be used with these parameters", "correct the setting", FAILED
    if isinstance(error, RevisionError):
        return f"was not migrated: {error}", "`--revision head` brings it to the current schema", FAILED
    if isinstance(error, OSError) and _came_from_driver(error):
        return _explain_connection(error)
    return None


def _explain_connection(error: OSError) -> tuple[str, str, int]:
    if isinstance(error, ConnectionRefusedError):
        return "refuses connections", _CHECK, UNAVAILABLE
    if isinstance(error, socket.gaierror):
        return "is on a host whose name is not known", "correct the setting", UNAVAILABLE
    if isinstance(error, TimeoutError):
        return "does not answer", _CHECK, UNAVAILABLE
    return f"cannot be reached ({error.strerror or type(error).__name__})", _CHECK, UNAVAILABLE


def _came_from_driver(error: BaseException) -> bool:
    """Whether it was raised while asyncpg worked: a file or another server raises the same kinds of errors."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__", "").startswith("asyncpg."):
            return True
        trace = trace.tb_next
    return False


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from, the nearest first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__

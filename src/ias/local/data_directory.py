"""The data directory: where everything of one platform lives, and the small private files in it."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ias.local.errors import PlatformError

_FREE_BYTES_MIN_NEW = 256 * 1024 * 1024
"""Less room than this is not enough for a new database cluster and its write-ahead log."""

_FREE_BYTES_MIN = 64 * 1024 * 1024
"""Less room than this is not enough to go on with existing data."""

_LOG_BYTES_MAX = 20 * 1024 * 1024


def default_data_directory() -> Path:
    """`~/.local/share/ias`."""
    return Path.home() / ".local" / "share" / "ias"


@dataclass(frozen=True)
class DataDirectory:
    """Names of what is kept under one root. The directory is 0700 and its secrets are 0600."""

    root: Path

    @property
    def postgres(self) -> Path:
        """The PostgreSQL cluster and what belongs to it."""
        return self.root / "postgres"

    @property
    def redis(self) -> Path:
        """Redis' append-only file."""
        return self.root / "redis"

    @property
    def spool(self) -> Path:
        """The gateway's usage records that are not published yet."""
        return self.root / "spool"

    @property
    def run(self) -> Path:
        """What the gateway's workers leave for each other while they run."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """One file per process."""
        return self.root / "logs"

    @property
    def lock(self) -> Path:
        """Held while a platform runs on this data."""
        return self.root / "lock"

    @property
    def secrets(self) -> Path:
        """Passwords and keys made at the first start."""
        return self.root / "secrets.json"

    @property
    def bootstrap(self) -> Path:
        """What the bootstrap made, so that it is found again."""
        return self.root / "bootstrap.json"

    @property
    def connection(self) -> Path:
        """How to reach the running platform; present only while it runs."""
        return self.root / "connection.json"

    @property
    def state(self) -> Path:
        """The supervisor's last word on itself and its processes."""
        return self.root / "state.json"

    def log_file(self, name: str) -> Path:
        """The log of one process."""
        return self.logs / f"{name}.log"

    def create(self) -> None:
        """Make the directories, and set aside logs that have grown large.

        Raises:
            PlatformError: the directory cannot be made or written, or the disk is full.
        """
        with explain_os_errors(self.root):
            for directory in (self.root, self.logs, self.spool, self.run, self.redis):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            probe = self.root / ".writable"
            probe.write_bytes(b"x")
            probe.unlink()
            for log in self.logs.glob("*.log"):
                if log.stat().st_size > _LOG_BYTES_MAX:
                    log.replace(log.with_suffix(".log.1"))
        free_bytes = shutil.disk_usage(self.root).free
        wanted_bytes = _FREE_BYTES_MIN if self.postgres.exists() else _FREE_BYTES_MIN_NEW
        if free_bytes < wanted_bytes:
            raise PlatformError(
                f"only {free_bytes >> 20} MiB are free on the disk of {self.root}",
                f"free at least {wanted_bytes >> 20} MiB there or choose another place with --data-dir",
            )


@contextmanager
def explain_os_errors(place: Path) -> Iterator[None]:
    """Turn what the system says about a path into one line and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message, advice = f"the disk of {place} is full", "free some room there or choose another with --data-dir"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            message, advice = f"{place} cannot be written", "choose a directory of yours with --data-dir"
        elif error.errno in (errno.ENOTDIR, errno.EEXIST):
            message, advice = f"{error.filename or place} is not a directory", "choose another place with --data-dir"
        else:
            message = f"{place} cannot be used ({error.strerror or error})"
            advice = "choose another place with --data-dir"
        raise PlatformError(message, advice) from error


@contextmanager
def explain_unreadable(place: Path) -> Iterator[None]:
    """Turn what the system says while something is read into one line and what to do. What is absent stays FileNotFoundError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except PermissionError as error:
        raise PlatformError(f"{place} cannot be read ({error.strerror})", "run as the user who owns it") from error
    except OSError as error:
        raise PlatformError(
            f"{place} cannot be read ({error.strerror or error})", "choose another place with --data-dir"
        ) from error


def write_private(path: Path, document: dict[str, Any]) -> None:
    """Replace a JSON file as a whole; it is 0600 from its first byte and never seen half written."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with explain_os_errors(path.parent):
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(json.dumps(document, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)


def find_document(path: Path) -> dict[str, Any] | None:
    """A JSON file written by `write_private`; None when there is none.

    Raises:
        PlatformError: the file is there and is not readable JSON.
    """
    try:
        with explain_unreadable(path):
            document = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise PlatformError(f"{path} is damaged", "restore it from a backup, or start on another --data-dir") from error
    if not isinstance(document, dict):
        raise PlatformError(f"{path} is damaged", "restore it from a backup, or start on another --data-dir")
    return document

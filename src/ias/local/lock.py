"""One platform per data directory.

The lock is an advisory file lock, which the kernel drops with the process that holds it: a stale lock cannot keep anyone out.
The file's content says who holds it (process id and start time, because ids are used again) for `ias down` and `ias status`.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from ias.local.data_directory import explain_os_errors, explain_unreadable
from ias.local.errors import PlatformError
from ias.local.typed_command import typed

_START_TIME_SLACK_S = 2.0
"""psutil derives start times from the boot time, which the clock's corrections move a little."""


class AlreadyRunningError(PlatformError):
    """Another platform runs on this data."""


@dataclass(frozen=True)
class Holder:
    """The process that holds the lock."""

    pid: int
    started_at: float
    """Unix seconds."""


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Hold the data directory for as long as the block runs.

    Raises:
        AlreadyRunningError: a platform runs on it.
    """
    with explain_os_errors(path.parent):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _read(path)
            who = f"process {holder.pid}" if holder else "another process"
            where = ("--data-dir", str(path.parent))
            raise AlreadyRunningError(
                f"a platform already runs on {path.parent} ({who})",
                f"see it with `{typed('status', *where)}`, stop it with `{typed('down', *where)}`",
            ) from error
        with explain_os_errors(path.parent):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "started_at": _start_time()}).encode(), 0)
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def find_holder(path: Path) -> Holder | None:
    """The living process that holds the lock; None when nobody does, whatever the file says.

    Raises:
        PlatformError: the file is not for this user to read.
    """
    holder = _read(path)
    return holder if holder and is_same_process(holder) else None


def is_same_process(holder: Holder) -> bool:
    """Whether the process still lives; one that merely got the same id does not count."""
    try:
        process = psutil.Process(holder.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return abs(process.create_time() - holder.started_at) < _START_TIME_SLACK_S
    except psutil.NoSuchProcess:
        return False


def _read(path: Path) -> Holder | None:
    try:
        with explain_unreadable(path.parent):
            content = json.loads(path.read_text())
        return Holder(pid=int(content["pid"]), started_at=float(content["started_at"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _start_time() -> float:
    return psutil.Process().create_time()

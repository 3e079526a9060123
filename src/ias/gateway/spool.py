"""Usage records on disk until the bus has confirmed them.

Each worker appends to segments in a directory of its own, which it keeps locked for as long as it lives. A directory whose
lock is free belonged to a dead worker and is adopted. A segment is JSON lines; a last line that a crash cut short is not
valid JSON and is passed over: its request had not been answered completely either, or its answer outlived its record by
less than one turn of the event loop.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import msgspec
import structlog

SEGMENT_BYTES_MAX: Final = 16_777_216
BATCH_RECORDS_MAX: Final = 500
_BATCH_BYTES_MAX: Final = 1_048_576
_UNWRITTEN_BYTES_MAX: Final = 16_777_216
_LOCK_NAME: Final = "lock"
_SUFFIX: Final = ".jsonl"
PROGRESS_NAME, PROGRESS_UNFINISHED_NAME = "progress", "progress.unfinished"
"""What `stream_progress` keeps beside the segments, and what that is made of."""

log = structlog.get_logger("ias.gateway.spool")

Fsync = Literal["never", "segment", "always"]


class SpoolDirectory:
    """One worker's directory, held by a lock that the kernel frees when the worker dies."""

    def __init__(self, path: Path, lock_fd: int) -> None:
        self.path = path
        self._lock_fd = lock_fd

    @classmethod
    def create(cls, root: Path) -> "SpoolDirectory":
        """A new directory, held by this process."""
        path = root / f"{os.getpid()}-{time.time_ns()}"
        path.mkdir(parents=True, mode=0o700)
        directory = cls.find_free(path)
        if directory is None:
            raise OSError(errno.EBUSY, "a new spool directory is already held", str(path))
        return directory

    @classmethod
    def find_free(cls, path: Path) -> "SpoolDirectory | None":
        """The directory, held by this process, when nobody else holds it."""
        try:
            fd = os.open(path / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return None
        return cls(path, fd)

    def list_segments(self) -> list[Path]:
        """The segments, oldest first."""
        return sorted(self.path.glob(f"*{_SUFFIX}"))

    def remove(self) -> None:
        """Give the directory up; it disappears when nothing is left in it that is still to be published."""
        if not self.list_segments() and not (self.path / PROGRESS_NAME).exists():
            with contextlib.suppress(OSError):
                for name in (PROGRESS_UNFINISHED_NAME, _LOCK_NAME):
                    (self.path / name).unlink(missing_ok=True)
                self.path.rmdir()
        os.close(self._lock_fd)


def adopt_directories(root: Path) -> list[SpoolDirectory]:
    """The directories that dead workers have left."""
    found = (SpoolDirectory.find_free(path) for path in sorted(root.iterdir()) if path.is_dir())
    return [directory for directory in found if directory is not None]


def measure_bytes(root: Path) -> int:
    """What all workers of the host have spooled."""
    total = 0
    for path in root.glob(f"*/*{_SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


class Spool:
    """The worker's end of the spool: append, and close segments for publishing."""

    def __init__(self, root: Path, *, bytes_max: int, fsync: Fsync) -> None:
        self.root = root
        self.directory = SpoolDirectory.create(root)
        self.bytes = measure_bytes(root)
        """Of the whole host, as of the last look, with what this worker has added since."""
        self.appended = 0
        self.corrupt_lines = 0
        self.published = 0
        self._bytes_max = bytes_max
        self._fsync = fsync
        self._unwritten: list[bytes] = []
        self._is_flush_due = False
        self._is_failing = False
        self._fd: int | None = None
        self._segment: Path | None = None
        self._segment_bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether nothing more may be admitted: the bound is reached, or the disk takes nothing."""
        return self._is_failing or self.bytes >= self._bytes_max

    @property
    def segment_bytes(self) -> int:
        """What the open segment holds."""
        return self._segment_bytes

    def append(self, line: bytes) -> None:
        """Keep a record: the JSON of a `contracts.events.UsageRecord` and a line end.

        It is with the kernel, and so survives this process, before the event loop's next turn: all records of a turn
        are one write.
        """
        self._unwritten.append(line)
        self.appended += 1
        if not self._is_flush_due:
            self._is_flush_due = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Write what has been appended. What the disk refuses is kept in memory and tried again."""
        self._is_flush_due = False
        if not self._unwritten:
            return
        data = b"".join(self._unwritten)
        try:
            written = self._write(data)
        except OSError as error:
            if not self._is_failing:
                log.error("spool_write_failed", error=str(error))  # noqa: TRY400 - the error says it all
            self._is_failing = True
            self._keep(data)
            return
        self._is_failing = False
        self._keep(data[written:])

    def _keep(self, rest: bytes) -> None:
        self._unwritten = [rest] if rest else []
        if len(rest) > _UNWRITTEN_BYTES_MAX:
            self._is_failing = True

    def _write(self, data: bytes) -> int:
        if self._fd is None:
            self._segment = self.directory.path / f"{time.time_ns():020d}{_SUFFIX}"
            self._fd = os.open(self._segment, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._segment_bytes = 0
        written = os.write(self._fd, data)
        if self._fsync == "always":
            os.fdatasync(self._fd)
        self._segment_bytes += written
        self.bytes += written
        return written

    async def close_segment(self) -> None:
        """End the open segment: it is whole now, and may be published. The next record begins another."""
        self.flush()
        fd, self._fd, self._segment = self._fd, None, None
        self._segment_bytes = 0
        if fd is None:
            return
        try:
            if self._fsync == "segment":
                await asyncio.to_thread(os.fdatasync, fd)
        finally:
            os.close(fd)

    def discard(self, segment: Path) -> None:
        """Delete a segment whose records are all confirmed."""
        self.bytes -= segment.stat().st_size
        segment.unlink()

    def list_closed(self) -> list[Path]:
        """The segments that are whole, oldest first."""
        return [path for path in self.directory.list_segments() if path != self._segment]


def read_batches(segment: Path, *, is_own: bool = False) -> Iterator[tuple[list[bytes], int]]:
    """A segment's records (as JSON) in batches for one message each, with how many lines could not be read.

    What this process wrote itself (`is_own`) was written whole and is not parsed again.
    """
    with segment.open("rb") as file:
        while lines := file.readlines(_BATCH_BYTES_MAX):
            for start in range(0, len(lines), BATCH_RECORDS_MAX):
                some = lines[start : start + BATCH_RECORDS_MAX]
                batch = [line[:-1] for line in some if (is_own and line.endswith(b"}\n")) or _is_record(line)]
                yield batch, len(some) - len(batch)


def _is_record(line: bytes) -> bool:
    if not line.endswith(b"}\n"):
        return False
    try:
        msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return True

"""What the processes of one pytest run share: a directory, the servers in it, and a lock so that each starts once.

The controller (or the only process, without xdist) creates the directory and stops everything at the end. Workers get
the directory through xdist and add servers to it.
"""

import fcntl
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tests.servers import containers
from tests.servers.launch import stop_keeper


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A server of this run, as written to its record."""

    url: str
    management_url: str | None = None
    keeper_pids: tuple[int, ...] = ()
    container_id: str | None = None


@dataclass(frozen=True)
class TestRun:
    """The run's directory and who owns it."""

    __test__ = False  # a name pytest would collect

    directory: Path
    owner_pid: int
    worker: str
    """`main`, or xdist's name of the worker: `gw0`, `gw1`, …"""

    @property
    def worker_number(self) -> int:
        """0 for the only process and for the first worker."""
        return int(self.worker.removeprefix("gw")) if self.worker.startswith("gw") else 0

    def shared(self, name: str, start: Callable[[Path], Server]) -> Server:
        """The server of that name, started by whichever process asks first, in its own directory."""
        record = self.directory / f"{name}.json"
        with self._lock(name):
            if record.exists():
                return msgspec.json.decode(record.read_bytes(), type=Server)
            server = start(self.new_directory(name))
            record.write_bytes(msgspec.json.encode(server))
            return server

    def new_directory(self, name: str) -> Path:
        """A fresh directory that the end of the run removes."""
        directory = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.directory))
        directory.chmod(0o755)
        return directory

    def stop_everything(self) -> None:
        """Stop every server that was started in this run and remove what they left."""
        for record in sorted(self.directory.glob("*.json")):
            server = msgspec.json.decode(record.read_bytes(), type=Server)
            for pid in server.keeper_pids:
                stop_keeper(pid)
            if server.container_id:
                containers.remove_container(server.container_id)
        shutil.rmtree(self.directory, ignore_errors=True)

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        with (self.directory / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def create_run(owner_pid: int) -> TestRun:
    """A new run, owned by this process. The path is short and open to the account that PostgreSQL runs under."""
    directory = Path(tempfile.mkdtemp(prefix="ias-tests-", dir="/tmp"))
    directory.chmod(0o755)
    return TestRun(directory=directory, owner_pid=owner_pid, worker="main")

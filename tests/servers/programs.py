"""Where the server programs are: on the machine, or installed with apt-get by root on Debian and Ubuntu.

`python -m tests.servers.programs` does it ahead of a run, so that no test waits for a package manager.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

APT_TIMEOUT_S = 300
APT_OPTIONS = ("-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::Retries=3", "-o", "Acquire::http::Timeout=30")
POLICY = Path("/usr/sbin/policy-rc.d")
INSTALL_LOCK = Path("/tmp/ias-tests-apt.lock")


class ServerUnavailableError(RuntimeError):
    """A server the tests need is not here and could not be had; the message says what to install."""


@dataclass(frozen=True)
class Program:
    """One server the tests need."""

    name: str
    package: str
    url_variable: str
    find: Callable[[], Path | None]

    def explain(self) -> str:
        """What somebody must do when nothing worked."""
        brew = self.package.removesuffix("-server")
        return (
            f"the tests need {self.name} and found none. Either install it "
            f"(Debian, Ubuntu: apt-get install {self.package}; macOS: brew install {brew}), "
            f"or set {self.url_variable} to the URL of a server that tests may wipe, or start a Docker engine."
        )


def _find_redis() -> Path | None:
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    return None


def _find_postgres() -> Path | None:
    """`postgres` beside its `initdb`; the newest where there are several versions."""
    if (found := shutil.which("postgres")) and (resolved := Path(found).resolve()).with_name("initdb").exists():
        return resolved
    installed = [
        path for path in Path("/usr/lib/postgresql").glob("*/bin/postgres") if path.parent.parent.name.isdigit()
    ]
    return max(installed, key=lambda path: int(path.parent.parent.name), default=None)


def _find_rabbitmq() -> Path | None:
    """The server's own script: Debian's wrapper in PATH changes the user and refuses everybody but root."""
    own = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    if own.exists():
        return own
    found = shutil.which("rabbitmq-server")
    return Path(found) if found else None


REDIS = Program("Redis", "redis-server", "IAS_TEST_REDIS_URL", _find_redis)
POSTGRES = Program("PostgreSQL", "postgresql", "IAS_TEST_POSTGRES_URL", _find_postgres)
RABBITMQ = Program("RabbitMQ", "rabbitmq-server", "IAS_TEST_RABBITMQ_URL", _find_rabbitmq)
ALL = (REDIS, POSTGRES, RABBITMQ)

NODE_PACKAGES = ("nodejs", "npm")
"""What the tests of the Node SDK need."""


def find_or_install(program: Program) -> Path | None:
    """The program's path; None where it is absent and apt-get is not ours to use or did not bring it."""
    found = program.find()
    if found is None and _may_install():
        with _only_one_installs():
            found = program.find()
            if found is None:
                _install([program.package])
                found = program.find()
    return found


def find_or_install_npm() -> str | None:
    """npm, where it has its Node beside it; None where they are absent and apt-get is not ours to use or did not bring them."""
    if not _has_node() and _may_install():
        with _only_one_installs():
            if not _has_node():
                _install([*NODE_PACKAGES])
    return shutil.which("npm") if _has_node() else None


def _has_node() -> bool:
    return shutil.which("node") is not None and shutil.which("npm") is not None


def _may_install() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


@contextmanager
def _only_one_installs() -> Iterator[None]:
    with INSTALL_LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _services_not_started() -> Iterator[None]:
    """Packages start their service when installed; a policy file that answers 101 forbids it meanwhile."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)


def _install(packages: list[str]) -> None:
    sys.stderr.write(f"installing {', '.join(packages)} with apt-get (the tests run real servers)\n")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *APT_OPTIONS, *packages]
    with _services_not_started():
        for command in (["apt-get", "update", "-qq", *APT_OPTIONS], install):
            try:
                done = subprocess.run(
                    command, env=environment, capture_output=True, text=True, timeout=APT_TIMEOUT_S, check=False
                )
            except subprocess.TimeoutExpired:
                sys.stderr.write(f"{' '.join(command)} did not end within {APT_TIMEOUT_S} s\n")
                return
            if done.returncode:
                sys.stderr.write(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}\n")


def main() -> None:
    """Install what is missing, all at once; what cannot be had is left to the tests that need it."""
    missing = [program.package for program in ALL if program.url_variable not in os.environ and program.find() is None]
    if not _has_node():
        missing += NODE_PACKAGES
    if missing and _may_install():
        with _only_one_installs():
            _install(missing)


if __name__ == "__main__":
    main()

"""Runs one server and outlives nobody: when the pytest run is gone, however it ended, the server is stopped.

Started as a script (`keeper.py OWNER_PID STOP_SIGNAL DIRECTORY USER COMMAND…`), it detaches, prints its own pid and
stays the server's parent. SIGTERM stops the server. It uses the standard library alone and starts in milliseconds.
"""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

CHECK_INTERVAL_S = 0.2
STOP_TIMEOUT_S = 5.0


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _stop(server: "subprocess.Popen[bytes]", stop_signal: int) -> None:
    server.send_signal(signal.SIGCONT)
    server.send_signal(stop_signal)
    try:
        server.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        pass
    try:
        os.killpg(server.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    server.wait(STOP_TIMEOUT_S)


def _clean_up(directory: Path) -> None:
    """Remove a server's directory, and the run's with it when no other server is left there."""
    shutil.rmtree(directory, ignore_errors=True)
    if directory.parent.name.startswith("ias-tests-") and not any(path.is_dir() for path in directory.parent.iterdir()):
        shutil.rmtree(directory.parent, ignore_errors=True)


def _keep(owner_pid: int, stop_signal: int, directory: Path, user: str, command: list[str]) -> None:
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stopping.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    account = pwd.getpwnam(user) if user else None
    with (directory / "server.log").open("ab") as log:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=directory,
            start_new_session=True,
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
        )
    (directory / "server.pid").write_text(str(server.pid))
    while server.poll() is None and not stopping and _is_alive(owner_pid):
        time.sleep(CHECK_INTERVAL_S)
    if server.poll() is None:
        _stop(server, stop_signal)
    if not _is_alive(owner_pid):
        _clean_up(directory)


def main() -> None:
    """Detach and keep the server whose command stands on the command line."""
    owner_pid, stop_signal, directory, user, *command = sys.argv[1:]
    child = os.fork()
    if child:
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        os._exit(0)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    _keep(int(owner_pid), int(stop_signal), Path(directory), user, command)


if __name__ == "__main__":
    main()

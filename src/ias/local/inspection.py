"""What a platform on a data directory is doing, seen from outside, and how it is stopped from outside."""

import os
import signal
import time
from dataclasses import dataclass
from typing import Any

import httpx
import psutil

from ias.local.connection import Connection, find_connection
from ias.local.data_directory import DataDirectory, find_document
from ias.local.errors import NotRunningError, PlatformError
from ias.local.lock import Holder, find_holder, is_same_process
from ias.local.typed_command import typed

_READY_TIMEOUT_S = 2.0
_STOP_TIMEOUT_S = 120.0
"""Longer than all processes may take one after the other, the gateway's drain above all."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """What `ias status` tells."""

    phase: str
    """`running`, `starting`, `stopping`; `stopped`, or `failed` when it could not go on; `killed` when it vanished."""
    ready: bool
    """Whether everything serves."""
    error: str | None
    connection: Connection | None
    processes: list[dict[str, Any]]

    @property
    def running(self) -> bool:
        """Whether a supervisor lives."""
        return self.phase in ("running", "starting", "stopping")


def inspect(data: DataDirectory) -> Status:
    """Look at the supervisor, at each process, and ask the gateway and the management services whether they are ready."""
    state = find_document(data.state) or {"phase": "stopped", "error": None, "processes": []}
    holder = find_holder(data.lock)
    if holder is None:
        ended = state["phase"] in ("stopped", "failed")
        return Status(
            phase=state["phase"] if ended else "killed",
            ready=False,
            error=state["error"],
            connection=None,
            processes=[],
        )
    connection = find_connection(data.connection)
    processes = [_describe(process) for process in state["processes"]]
    if connection is not None:
        answers = {
            "gateway": _find_away(f"{connection.gateway_url}/ready"),
            "management": _find_away(f"{connection.management_url}/ready"),
        }
        processes = [_with_answer(process, answers.get(process["name"])) for process in processes]
    return Status(
        phase=state["phase"],
        ready=connection is not None and all(process["state"] == "ready" for process in processes),
        error=state["error"],
        connection=connection,
        processes=[{"name": "supervisor", "pid": holder.pid, "state": "ready", "restarts": 0}, *processes],
    )


def stop(data: DataDirectory) -> None:
    """End the platform and return when nothing of it is left.

    Raises:
        NotRunningError: none runs.
        PlatformError: it does not end, or is not ours to end.
    """
    holder = find_holder(data.lock)
    if holder is None:
        raise NotRunningError(f"no platform runs on {data.root}")
    try:
        os.kill(holder.pid, signal.SIGTERM)
    except PermissionError as error:
        raise PlatformError(f"process {holder.pid} is another user's", "stop it as that user") from error
    except ProcessLookupError:
        return
    _wait_ended(holder, data)


def _wait_ended(holder: Holder, data: DataDirectory) -> None:
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while is_same_process(holder):
        if time.monotonic() > deadline:
            logs = typed("logs", "up", "--data-dir", str(data.root))
            raise PlatformError(
                f"the platform (process {holder.pid}) did not stop within {_STOP_TIMEOUT_S:.0f} s",
                f"see `{logs}`, or end it with kill -9 {holder.pid}: its processes end with it",
            )
        time.sleep(0.1)


def _describe(process: dict[str, Any]) -> dict[str, Any]:
    pid = process["pid"]
    alive = pid is not None and psutil.pid_exists(pid)
    state = ("ready" if process["ready"] else "starting") if alive else "down"
    return {"name": process["name"], "pid": pid, "state": state, "restarts": process["restarts"]}


def _with_answer(process: dict[str, Any], away: str | None) -> dict[str, Any]:
    return process if away is None or process["state"] == "down" else {**process, "state": away}


def _find_away(url: str) -> str | None:
    """Why a process does not serve, in its own words; None when it does."""
    try:
        answer = httpx.get(url, timeout=_READY_TIMEOUT_S, trust_env=False)
    except httpx.HTTPError as error:
        return f"does not answer ({type(error).__name__})"
    if answer.is_success:
        return None
    try:
        return f"waits for {', '.join(answer.json()['away'])}"
    except (ValueError, KeyError, TypeError):
        return f"not ready (answers {answer.status_code})"

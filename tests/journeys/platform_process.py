"""A platform of a test's own, started as a person would start it: with `ias up`."""

import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

from ias.local.ports import find_free_ports

START_TIMEOUT_S = 180
STOP_TIMEOUT_S = 90


@dataclass
class UpProcess:
    """A running `ias up` in the foreground and what it said so far."""

    process: subprocess.Popen[str]
    data_root: Path
    lines: list[str] = field(default_factory=list)
    reader: threading.Thread | None = None

    @property
    def output(self) -> str:
        return "".join(self.lines)

    @property
    def connection(self) -> dict[str, Any]:
        return json.loads((self.data_root / "connection.json").read_text())

    def family(self) -> list[psutil.Process]:
        """The supervisor and everything under it."""
        supervisor = psutil.Process(self.process.pid)
        return [supervisor, *supervisor.children(recursive=True)]

    def stop(self, signal_number: int) -> int:
        """Send a signal and wait; the exit status. Fails when any process is left."""
        family = self.family()
        self.process.send_signal(signal_number)
        status = self.process.wait(STOP_TIMEOUT_S)
        assert_gone(family)
        self.join_reader()
        return status

    def join_reader(self) -> None:
        """Wait until everything it printed is in `lines`."""
        assert self.reader is not None
        self.reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


def launch_up(data_root: Path, *options: str) -> UpProcess:
    """`ias up` on free ports, just begun."""
    port, management_port = find_free_ports(2)
    command = [sys.executable, "-m", "ias", "up", "--data-dir", str(data_root), "--workers", "1"]
    command += ["--port", str(port), "--management-port", str(management_port), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    up = UpProcess(process, data_root)
    up.reader = threading.Thread(target=_read, args=(process, up.lines), daemon=True)
    up.reader.start()
    return up


def start_up(data_root: Path, *options: str) -> UpProcess:
    """`ias up` on free ports; returns when it says that it is up.

    Raises:
        AssertionError: with everything it printed, when it did not come up.
    """
    up = launch_up(data_root, *options)
    deadline = time.monotonic() + START_TIMEOUT_S
    # The last line of the greeting: what stands before it can be pasted.
    while "print()\n" not in up.lines:
        if up.process.poll() is not None or time.monotonic() > deadline:
            if up.process.poll() is None:
                up.process.terminate()
                up.process.wait(STOP_TIMEOUT_S)
            up.join_reader()
            raise AssertionError(f"the platform did not come up:\n{up.output}")
        time.sleep(0.05)
    return up


def _read(process: subprocess.Popen[str], lines: list[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)  # noqa: PERF402  # seen by the test as it comes


def assert_gone(processes: list[psutil.Process]) -> None:
    """Fail when one of them still runs after a while."""
    _, alive = psutil.wait_procs(processes, timeout=30)
    alive = [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert not alive, f"left behind: {alive}"


def ias(*arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Run an `ias` command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "ias", *arguments], capture_output=True, text=True, timeout=timeout_s, check=False
    )


class Management:
    """The management APIs, signed in as the first administrator."""

    def __init__(self, connection: dict[str, Any]) -> None:
        self._client = httpx.Client(base_url=connection["management_url"], timeout=10)
        answer = self._client.post("/identity/v1/sessions", json=connection["admin"])
        assert answer.status_code in (200, 201), answer.text
        self._client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, **parameters: Any) -> dict[str, Any]:
        answer = self._client.get(path, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._client.post(path, json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def delete(self, path: str) -> None:
        answer = self._client.delete(path)
        assert answer.status_code == 204, answer.text

    def list_ledger(self, org_id: str) -> list[dict[str, Any]]:
        """Every entry of an org."""
        entries, cursor = [], {}
        while True:
            page = self.get("/billing/v1/ledger", org_id=org_id, limit=100, **cursor)
            entries += page["data"]
            if page["next_cursor"] is None:
                return entries
            cursor = {"cursor": page["next_cursor"]}

    def wait_for_unserved(self, org_id: str, request_id: str) -> dict[str, Any]:
        """Why a request was not served, once gateways have told of it."""
        for _ in range(100):
            answer = self._client.get(f"/billing/v1/requests/{request_id}", params={"org_id": org_id})
            if answer.status_code == 200:
                return answer.json()["unserved"]
            time.sleep(0.1)
        raise AssertionError(answer.text)

    def sum_usage(self, org_id: str) -> tuple[int, int, int, Decimal]:
        """Requests, input tokens, output tokens and USD of an org today, as analytics counts them."""
        points = self.get("/analytics/v1/usage", org_id=org_id)["data"]
        return (
            sum(point["requests"] for point in points),
            sum(point["input_tokens"] for point in points),
            sum(point["output_tokens"] for point in points),
            sum((Decimal(point["cost_usd"]) for point in points), Decimal(0)),
        )

    def wait_for_entries(self, org_id: str, request_id: str, *, timeout_s: float = 30) -> list[dict[str, Any]]:
        """The ledger's entries of a request, once there are any."""
        deadline = time.monotonic() + timeout_s
        while True:
            entries = self.get("/billing/v1/ledger", org_id=org_id, request_id=request_id)["data"]
            if entries or time.monotonic() > deadline:
                return entries
            time.sleep(0.1)

"""A whole platform for one measurement: `ias up` in a directory of its own, on free ports, gone afterwards."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

IAS = [sys.executable, "-m", "ias"]
START_TIMEOUT_S = 240


@contextmanager
def run_platform(*options: str, environment: dict[str, str] | None = None) -> Iterator[dict[str, Any]]:
    """The platform with more options of `ias up`; how to reach it."""
    with tempfile.TemporaryDirectory(prefix="ias-benchmark-") as directory:
        data = ["--data-dir", str(Path(directory) / "data")]
        ports = ["--port", str(_free_port()), "--management-port", str(_free_port())]
        _call(["up", "--detach", *data, *ports, *options], environment or {})
        try:
            [document] = Path(directory).rglob("connection.json")
            yield json.loads(document.read_text())
        finally:
            _call(["down", *data], {})


def _call(arguments: Sequence[str], environment: dict[str, str]) -> None:
    whole = {**os.environ, "IAS_GATEWAY_ACCESS_LOG": "false", **environment}
    subprocess.run([*IAS, *arguments], check=True, timeout=START_TIMEOUT_S, stdout=subprocess.DEVNULL, env=whole)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

"""`ias up --detach`: starts the supervisor as a process of its own that outlives the terminal (`detached.py`)."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable

from ias.local.connection import Connection
from ias.local.data_directory import DataDirectory, explain_os_errors
from ias.local.errors import PlatformError
from ias.local.greeting import render_greeting
from ias.local.options import UpOptions
from ias.local.reporting import show_on_terminal

PIPE_VARIABLE = "IAS_UP_PIPE"
_STOP_TIMEOUT_S = 90


def run_in_background(options: UpOptions) -> None:
    """Start the platform, show what it tells until it is up, and return while it runs on."""
    connection = launch(options, show_on_terminal)
    show_on_terminal(render_greeting(connection, options.data_root, detached=True))


def launch(options: UpOptions, show: Callable[[str], None]) -> Connection:
    """Start a supervisor in the background and return when the platform is up.

    Raises:
        PlatformError: it did not come up; nothing of it is left.
    """
    data = DataDirectory(options.data_root)
    data.create()
    reading, writing = os.pipe()
    with explain_os_errors(data.logs):
        log = os.open(data.log_file("up"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    process = subprocess.Popen(
        [sys.executable, "-m", "ias.local.detached"],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        pass_fds=[writing],
        env={**os.environ, PIPE_VARIABLE: str(writing)},
        start_new_session=True,
        cwd="/",
    )
    os.close(writing)
    os.close(log)
    try:
        if process.stdin is None:
            raise RuntimeError("the pipe was asked for")
        with process.stdin:
            process.stdin.write(options.to_json().encode())
        return _follow(reading, show, data)
    except KeyboardInterrupt:
        process.send_signal(signal.SIGTERM)
        process.wait(_STOP_TIMEOUT_S)
        raise


def _follow(reading: int, show: Callable[[str], None], data: DataDirectory) -> Connection:
    with os.fdopen(reading) as lines:
        for line in lines:
            message = json.loads(line)
            if "ready" in message:
                return Connection(**message["ready"])
            if "error" in message:
                raise PlatformError(*message["error"])
            show(message["line"])
    raise PlatformError("the platform ended while it started", f"see {data.log_file('up')}")

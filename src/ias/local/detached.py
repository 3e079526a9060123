"""`ias up --detach`: the supervisor as a process of its own that outlives the terminal.

`launch` starts it and shows what it tells until the platform is up; `python -m ias.local.detached` is the other side. The
options go through standard input, for they may hold a secret; what it tells comes back through a pipe.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable

from ias.local.connection import Connection
from ias.local.data_directory import DataDirectory, explain_os_errors
from ias.local.errors import PlatformError
from ias.local.options import UpOptions
from ias.local.reporting import Pipe, Reporter
from ias.local.up import run_platform

_PIPE_VARIABLE = "IAS_UP_PIPE"
_STOP_TIMEOUT_S = 90


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
        env={**os.environ, _PIPE_VARIABLE: str(writing)},
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


def main() -> int:
    """The supervisor's side."""
    options = UpOptions.from_json(sys.stdin.read())
    pipe = Pipe(os.fdopen(int(os.environ.pop(_PIPE_VARIABLE)), "w"))
    report = Reporter(lambda line: pipe.send("line", line), DataDirectory(options.data_root).log_file("up"))

    def on_ready(connection: Connection) -> None:
        pipe.send("ready", connection.as_document())
        pipe.close()

    try:
        asyncio.run(run_platform(options, report, on_ready))
    except PlatformError as error:
        report(f"error: {error}")
        pipe.send("error", [error.message, error.advice])
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

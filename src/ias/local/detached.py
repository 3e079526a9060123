"""The supervisor of a platform that runs in the background: `python -m ias.local.detached`, started by `background.py`.

Its options come through standard input, for they may hold a secret; what it tells goes back through a pipe.
"""

import asyncio
import os
import sys

from ias.local.background import PIPE_VARIABLE
from ias.local.connection import Connection
from ias.local.data_directory import DataDirectory
from ias.local.errors import PlatformError
from ias.local.options import UpOptions
from ias.local.reporting import Pipe, Reporter
from ias.local.up import run_platform


def main() -> int:
    """Run until it is ended; the exit status."""
    options = UpOptions.from_json(sys.stdin.read())
    pipe = Pipe(os.fdopen(int(os.environ.pop(PIPE_VARIABLE)), "w"))
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

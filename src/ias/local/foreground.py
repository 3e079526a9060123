"""`ias up` in the foreground: the terminal shows the progress, and Ctrl-C ends the platform."""

import asyncio

from ias.local.connection import Connection
from ias.local.data_directory import DataDirectory
from ias.local.greeting import render_greeting
from ias.local.options import UpOptions
from ias.local.reporting import Reporter, show_on_terminal
from ias.local.up import run_platform


def run_in_foreground(options: UpOptions) -> None:
    """Run the platform until it is ended."""
    report = Reporter(show_on_terminal, DataDirectory(options.data_root).log_file("up"))

    def on_ready(connection: Connection) -> None:
        show_on_terminal(render_greeting(connection, options.data_root, detached=False))

    asyncio.run(run_platform(options, report, on_ready))

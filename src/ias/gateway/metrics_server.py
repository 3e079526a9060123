"""`/metrics` of all workers, answered by their supervisor on an address of its own.

The numbers name models and tell how much they are used, which is nobody's business who may only call the API: its port has none.
They are at most as old as the snapshots that the workers leave, a second.
"""

import asyncio
import socket
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ias.gateway.metrics_export import collect_snapshots, render_numbers
from ias.kit.side_server import SideServer

_TYPE = "text/plain; version=0.0.4; charset=utf-8"


async def serve_metrics(listener: socket.socket, run_dir: Path, stop: asyncio.Event) -> None:
    """Answer on a bound socket until told to stop."""

    def answer(_: Request) -> Response:
        return Response(render_numbers(collect_snapshots(run_dir)), media_type=_TYPE)

    server = SideServer(Starlette(routes=[Route("/metrics", answer)]))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await stop.wait()
    server.should_exit = True
    await serving

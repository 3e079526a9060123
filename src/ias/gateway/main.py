"""The supervisor: N worker processes on one port, restarted when they crash, drained when the supervisor is told to stop.

It answers `/metrics` for them, on another port.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time

import structlog

from ias.gateway.compiled import find_compiled
from ias.gateway.metrics_server import serve_metrics
from ias.gateway.settings import GatewaySettings
from ias.kit.logging import configure_logging

_BACKOFF_FIRST_S = 0.2
_BACKOFF_LAST_S = 10.0
_HEALTHY_AFTER_S = 30.0
_KILL_MARGIN_S = 15.0

log = structlog.get_logger("ias.gateway")


def serve(settings: GatewaySettings) -> int:
    """Run the gateway until SIGTERM or SIGINT; the exit status."""
    configure_logging("gateway", settings)
    return asyncio.run(_supervise(settings))


async def _supervise(settings: GatewaySettings) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with contextlib.ExitStack() as stack:
        try:
            # Bound, but not listening: finds out early whether the port can be had, and which one 0 means.
            reserved = stack.enter_context(_bind(settings.gateway_host, settings.gateway_port, shared=True))
            metrics = stack.enter_context(_bind(settings.gateway_metrics_host, settings.gateway_metrics_port))
        except _CannotListenError as error:
            log.error("cannot_listen", host=error.host, port=error.port, error=str(error.__cause__))  # noqa: TRY400 - the error says it all
            return 1
        port = int(reserved.getsockname()[1])
        log.info(
            "gateway_starting",
            host=settings.gateway_host,
            port=port,
            metrics_host=settings.gateway_metrics_host,
            metrics_port=int(metrics.getsockname()[1]),
            workers=settings.gateway_workers,
        )
        drained = asyncio.Event()
        serving = asyncio.create_task(serve_metrics(metrics, settings.gateway_run_dir, drained), name="metrics")
        environment = _environment(settings)
        keepers = [
            asyncio.create_task(_keep_worker(settings, environment, slot, port, stop), name=f"worker-{slot}")
            for slot in range(settings.gateway_workers)
        ]
        await asyncio.gather(*keepers)
        drained.set()
        await serving
    log.info("gateway_stopped")
    return 0


class _CannotListenError(Exception):
    """An address that cannot be had. The system's own error is its cause."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"{host}:{port}")
        self.host = host
        self.port = port


def _bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A bound socket, of an address that others may bind too where it is `shared`."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise _CannotListenError(host, port) from error
    return bound


async def _keep_worker(
    settings: GatewaySettings, environment: dict[str, str], slot: int, port: int, stop: asyncio.Event
) -> None:
    """One worker, started again whenever it ends, the sooner the longer it had run."""
    backoff_s = _BACKOFF_FIRST_S
    while not stop.is_set():
        started = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ias.gateway.worker", str(slot), str(port), str(os.getpid()), env=environment
        )
        if await _ended_before(process, stop):
            log.error("worker_crashed", slot=slot, status=process.returncode, restart_in_s=backoff_s)
            if time.monotonic() - started > _HEALTHY_AFTER_S:
                backoff_s = _BACKOFF_FIRST_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), backoff_s)
            backoff_s = min(backoff_s * 2, _BACKOFF_LAST_S)
            continue
        await _stop_worker(process, settings)


def _environment(settings: GatewaySettings) -> dict[str, str]:
    """The workers read their settings from the environment; what the command line decided is put there."""
    environment = {**os.environ, "IAS_GATEWAY_HOST": settings.gateway_host}
    compiled = find_compiled() if settings.gateway_compiled else None
    if compiled is not None:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(compiled), environment.get("PYTHONPATH"))))
    return environment


async def _ended_before(process: asyncio.subprocess.Process, stop: asyncio.Event) -> bool:
    """Wait for the worker's end or for the supervisor's; whether the worker ended."""
    ended = asyncio.create_task(process.wait())
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not ended.done():
        ended.cancel()
        return False
    return not stop.is_set()


async def _stop_worker(process: asyncio.subprocess.Process, settings: GatewaySettings) -> None:
    """Ask the worker to drain; kill it when it takes far longer than it may."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), settings.gateway_drain_s + _KILL_MARGIN_S)
    except TimeoutError:
        log.error("worker_killed", pid=process.pid)  # noqa: TRY400 - there is no traceback to show
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


if __name__ == "__main__":
    sys.exit(serve(GatewaySettings()))

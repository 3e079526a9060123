"""One worker process: builds the gateway's parts, listens, keeps the time, and goes down in order.

`python -m ias.gateway.worker SLOT PORT [SUPERVISOR_PID]` is how the supervisor (main.py) starts it.
"""

import asyncio
import contextlib
import gc
import importlib
import os
import resource
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog
import uvloop

from ias.contracts import redis_keys
from ias.contracts.events import UsageRecord
from ias.contracts.routes import CREDENTIAL_PURPOSE
from ias.gateway.access_log import AccessLog
from ias.gateway.clock import Clock
from ias.gateway.compiled import is_compiled
from ias.gateway.connection import ServerConnection
from ias.gateway.context import Gateway
from ias.gateway.dialing import Dialer
from ias.gateway.identity_client import IdentityClient
from ias.gateway.losses import restore_reservations, tell_unpublished
from ias.gateway.metrics import Metrics
from ias.gateway.operations import check_dependencies
from ias.gateway.pipeline import Pipeline
from ias.gateway.publishing import SpoolPublisher
from ias.gateway.redis_connection import RedisConnection
from ias.gateway.request_ids import RequestIds
from ias.gateway.routers import Routers
from ias.gateway.script_calls import RESERVE, RESTORE, SETTLE
from ias.gateway.settings import GatewaySettings
from ias.gateway.settlements import Settlements
from ias.gateway.snapshots import Snapshots
from ias.gateway.spool import Spool
from ias.gateway.stream_comments import CommentingConnection
from ias.gateway.stream_progress import StreamProgress
from ias.gateway.unserved import UnservedRequests
from ias.gateway.upstream import Upstreams
from ias.gateway.upstream_request import UpstreamRequests
from ias.gateway.waking import Waking
from ias.kit.addresses import AddressPolicy
from ias.kit.bus import Publisher, open_publisher
from ias.kit.logging import configure_logging
from ias.kit.sealing import Sealer, decode_secret_key

if TYPE_CHECKING:
    from ias.gateway.tracing import Tracing

_TICK_S = 0.1
_STALL_S = 0.5
_SAVE_METRICS_S = 1.0
_CLOSE_TIMEOUT_S = 5.0
_START_PATIENCE_S = 5.0
_SUPERVISOR_CHECK_S = 0.5
_BACKLOG = 4096
_GC_THRESHOLD = 20_000
"""Requests leave no cycles behind, so looking for them often only costs time."""

log = structlog.get_logger("ias.gateway.worker")


class Worker:
    """The gateway in one event loop. `start`, then `drain` and `close`."""

    def __init__(self, settings: GatewaySettings, *, slot: int = 0, publisher: Publisher | None = None) -> None:
        self.settings = settings
        self.clock = Clock()
        self.connections: set[ServerConnection] = set()
        self.gateway = self._build(slot)
        self.pipeline = Pipeline(self.gateway)
        self.progress = StreamProgress(self.gateway.spool, interval_s=settings.gateway_stream_progress_s)
        self.publisher = SpoolPublisher(
            self.gateway.spool,
            publisher if publisher is not None else open_publisher(settings.bus_url.get_secret_value()),
            interval_s=settings.gateway_publish_interval_s,
            progress=self.progress,
            settle=self._settle_interrupted,
        )
        self._connection_class = CommentingConnection if settings.gateway_stream_comment_s else ServerConnection
        self._server: asyncio.Server | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._add_metric_sources()

    # -------------------------------------------------------------- building

    def _build(self, slot: int) -> Gateway:
        settings = self.settings
        secret_key = decode_secret_key(settings.secret_key.get_secret_value())
        self._identity = (
            None
            if settings.service_secret is None
            else IdentityClient(
                settings.identity_url,
                client_secret=settings.service_secret.get_secret_value(),
                timeout_s=settings.identity_timeout_s,
            )
        )
        settings.gateway_run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        snapshots = Snapshots(
            clock=self.clock,
            ttl_s=settings.gateway_snapshot_ttl_s,
            unknown_ttl_s=settings.gateway_unknown_key_ttl_s,
            keys_max=settings.gateway_snapshot_keys_max,
            ask_identity=None if self._identity is None else self._identity.resolve,
        )
        settlements = Settlements()
        spool = Spool(
            settings.gateway_spool_dir,
            bytes_max=settings.gateway_spool_bytes_max,
            fsync=settings.gateway_spool_fsync,
        )
        redis = RedisConnection(
            settings.redis_url.get_secret_value(),
            timeout_s=settings.gateway_redis_timeout_s,
            tracked_prefixes=redis_keys.TRACKED_PREFIXES,
            scripts=(RESERVE, SETTLE, RESTORE),
            on_ready=self._redis_ready,
            on_lost=snapshots.forget,
            on_invalidated=self._redis_invalidated,
            before_write=spool.flush,  # a settlement without its record would be spent and never booked
        )
        snapshots.attach(redis)
        settlements.attach(redis)
        upstreams = Upstreams(
            settings,
            tls=ssl.create_default_context(cafile=settings.gateway_tls_ca_file),
            dialer=_build_dialer(settings),
        )
        tracing = _open_tracing(settings)
        upstream_requests = UpstreamRequests(
            sealer=Sealer(secret_key, CREDENTIAL_PURPOSE),
            salt_key=secret_key,
            salts=settings.gateway_cache_salt,
            tracing=tracing,
        )
        return Gateway(
            settings=settings,
            redis=redis,
            snapshots=snapshots,
            settlements=settlements,
            routers=self._build_routers(snapshots, upstreams, upstream_requests, redis),
            upstreams=upstreams,
            upstream_requests=upstream_requests,
            tracing=tracing,
            spool=spool,
            metrics=Metrics(settings.gateway_run_dir, slot),
            access_log=AccessLog(enabled=settings.gateway_access_log, share=settings.gateway_access_log_share),
            unserved=UnservedRequests(redis),
            clock=self.clock,
            request_ids=RequestIds(),
        )

    def _build_routers(
        self, snapshots: Snapshots, upstreams: Upstreams, requests: UpstreamRequests, redis: RedisConnection
    ) -> Routers:
        waking = Waking(upstreams, requests)
        routers = Routers(self.settings, snapshots=snapshots, clock=self.clock, waking=waking, cut=upstreams.cut)
        waking.attach(redis)
        routers.attach(redis)
        snapshots.on_routing = routers.refresh
        return routers

    def _redis_invalidated(self, keys: list[bytes] | None) -> None:
        self.gateway.snapshots.invalidate(keys)
        if keys is None:  # it was emptied
            self._tell_what_may_be_lost()

    def _tell_what_may_be_lost(self) -> None:
        restore_reservations(self.gateway, [c.exchange for c in self.connections if c.exchange is not None])
        tell_unpublished(self.gateway)

    def _settle_interrupted(self, record: UsageRecord) -> None:
        """Of another worker, which was killed: what its stream had reserved need not wait for its deadline."""
        tokens = record.input_tokens + record.output_tokens
        self.gateway.settlements.settle(record.org_id, record.request_id, record.cost_nano_usd, tokens)

    def _redis_ready(self) -> None:
        self._tell_what_may_be_lost()
        self.gateway.unguarded.begin_anew()
        self.gateway.snapshots.refresh()
        self.gateway.settlements.retry()

    def _add_metric_sources(self) -> None:
        gateway, metrics = self.gateway, self.gateway.metrics
        counters: dict[str, Callable[[], float]] = {
            "ias_gateway_redis_losses_total": lambda: gateway.redis.losses,
            "ias_gateway_unguarded_admissions_total": lambda: gateway.unguarded.admitted,
            "ias_gateway_unguarded_refusals_total": lambda: gateway.unguarded.refused,
            "ias_gateway_usage_records_total": lambda: gateway.spool.appended,
            "ias_gateway_usage_published_total": lambda: gateway.spool.published,
            "ias_gateway_spool_corrupt_lines_total": lambda: gateway.spool.corrupt_lines,
            "ias_gateway_backend_wakes_total": lambda: gateway.routers.wakes,
            "ias_gateway_publish_failures_total": lambda: self.publisher.failures,
            "ias_gateway_rejected_documents_total": lambda: gateway.snapshots.rejected_documents,
        }
        gauges: dict[str, Callable[[], float]] = {
            "ias_gateway_connections": lambda: len(self.connections),
            "ias_gateway_upstream_in_flight": lambda: gateway.upstreams.in_flight,
            "ias_gateway_spool_bytes": lambda: gateway.spool.bytes,
            "ias_gateway_settlements_waiting": lambda: gateway.settlements.waiting,
            "ias_gateway_queue_length": lambda: gateway.routers.waiting,
            "ias_gateway_unguarded_nano_usd": lambda: gateway.unguarded.taken_nano_usd,
            "ias_gateway_redis_up": lambda: int(gateway.redis.is_ready),
        }
        for name, read in counters.items():
            metrics.add_source(name, read, is_counter=True)
        for name, read in gauges.items():
            metrics.add_source(name, read)

    # -------------------------------------------------------------- life

    async def start(self, port: int | None = None, *, patience_s: float = 0.0) -> int:
        """Connect, then listen; the port.

        Requests that come before Redis is there are refused, so a little patience spares them. Redis and the bus may come
        later all the same: /ready says what is there.
        """
        loop = asyncio.get_running_loop()
        await self.gateway.redis.start()
        self.publisher.start()
        self._ticker = asyncio.create_task(self._tick(), name="ticker")
        until = loop.time() + patience_s
        while loop.time() < until and not all(check_dependencies(self.gateway).values()):  # noqa: ASYNC110 - see drain
            await asyncio.sleep(0.01)
        self._server = await loop.create_server(
            self._make_connection,
            self.settings.gateway_host,
            self.settings.gateway_port if port is None else port,
            backlog=_BACKLOG,
            reuse_port=True,
        )
        sockets: tuple[socket.socket, ...] = self._server.sockets
        return int(sockets[0].getsockname()[1])

    def _make_connection(self) -> Any:
        """For asyncio, which knows a protocol by its methods."""
        return self._connection_class(self.pipeline, self.connections)

    async def drain(self) -> None:
        """Accept no more; let running requests finish until the deadline, then end them with an error."""
        self.gateway.is_draining = True
        if self._server is not None:
            self._server.close()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.settings.gateway_drain_s
        for connection in tuple(self.connections):
            connection.drain()
        while self.connections and loop.time() < deadline:  # noqa: ASYNC110 - connections end in callbacks
            await asyncio.sleep(0.02)
        for connection in tuple(self.connections):
            connection.cut()
        await asyncio.sleep(0)

    async def close(self) -> None:
        """Let go of everything. Usage that cannot be published stays on disk."""
        if self._ticker is not None:
            self._ticker.cancel()
        if self._server is not None:
            self._server.close()
        for connection in tuple(self.connections):
            connection.cut()
        gateway = self.gateway
        await gateway.routers.close()
        gateway.upstreams.close()
        gateway.access_log.flush()
        gateway.metrics.save()
        if gateway.tracing is not None:
            await asyncio.to_thread(gateway.tracing.close)
        await self.publisher.close(timeout_s=_CLOSE_TIMEOUT_S)
        await gateway.redis.close()
        if self._identity is not None:
            await self._identity.close()

    async def _tick(self) -> None:
        """Watches every deadline: one look at all of them costs less than a timer for each.

        A worker that was itself kept from running looks again a tick later: what came meanwhile has not been read yet, and
        nobody else is to blame.
        """
        loop = asyncio.get_running_loop()
        save_at = note_at = 0.0
        before = now = loop.time()
        while True:
            await asyncio.sleep(_TICK_S)
            self.clock.tick()
            before, now = now, loop.time()
            if now - before > _STALL_S:
                continue
            self.gateway.redis.check_deadline(now)
            self.gateway.upstreams.check_deadlines(now)
            self.gateway.routers.tick(now)
            for connection in [c for c in self.connections if c.deadline <= now]:
                connection.deadline_passed()
            if self._connection_class is CommentingConnection:
                for connection in self.connections:
                    if isinstance(connection, CommentingConnection):
                        connection.comment_if_quiet(now)
            if now >= note_at and self.progress.interval_s:
                note_at = now + self.progress.interval_s
                self.progress.note((c.exchange for c in self.connections if c.exchange is not None), self.gateway)
            if now >= save_at:
                save_at = now + _SAVE_METRICS_S
                self.gateway.metrics.save()
                for connection in list(self.connections):
                    connection.end_if_run_out()
                self.gateway.settlements.retry()
                self.gateway.unserved.send()
                tell_unpublished(self.gateway)
                self._forget_backends()

    def _forget_backends(self) -> None:
        """Keep nothing of backends that are no longer in the route table."""
        routes = self.gateway.snapshots.routes
        if routes is not None:
            backends = [backend for route in routes.models.values() for backend in route.backends]
            self.gateway.upstreams.retain({backend.url for backend in backends})
            self.gateway.upstream_requests.retain(backends)


def _build_dialer(settings: GatewaySettings) -> Dialer:
    allowed = AddressPolicy(
        allow_loopback=settings.gateway_allow_loopback,
        allow_private_networks=settings.gateway_allow_private_networks,
    )
    return Dialer(allowed)


def _open_tracing(settings: GatewaySettings) -> "Tracing | None":
    """Imported only when it is wanted: OpenTelemetry's exporter weighs more than the rest of a worker."""
    if settings.otlp_endpoint is None:
        return None
    tracing: Tracing = importlib.import_module("ias.gateway.tracing").Tracing(settings)
    return tracing


async def run(settings: GatewaySettings, slot: int, port: int, supervisor_pid: int | None = None) -> None:
    """Serve until SIGTERM or SIGINT, or until the supervisor is no longer there to send one."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    orphaned = None if supervisor_pid is None else asyncio.create_task(_stop_when_orphaned(supervisor_pid, stop))
    worker = Worker(settings, slot=slot)
    await worker.start(port, patience_s=_START_PATIENCE_S)
    gc.collect()
    gc.freeze()  # what lives as long as the worker need not be looked at by every collection
    gc.set_threshold(_GC_THRESHOLD, 20, 100)
    log.info("worker_started", slot=slot, port=port, compiled=is_compiled())
    await stop.wait()
    if orphaned is not None:
        orphaned.cancel()
    await worker.drain()
    await worker.close()
    log.info("worker_stopped", slot=slot)


async def _stop_when_orphaned(supervisor_pid: int, stop: asyncio.Event) -> None:
    """A supervisor that was killed cannot stop its workers, and its successor needs their port."""
    while os.getppid() == supervisor_pid:  # noqa: ASYNC110 - no event tells a process that its parent has died
        await asyncio.sleep(_SUPERVISOR_CHECK_S)
    log.error("supervisor_gone", supervisor_pid=supervisor_pid)
    stop.set()


def allow_open_files() -> None:
    """As many as the system lets this process have: a request takes two, and the usual limit is 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS says unlimited and means less
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    """Entry of the process."""
    allow_open_files()
    settings = GatewaySettings()
    configure_logging("gateway", settings)
    slot, port, *supervisor_pid = (int(argument) for argument in sys.argv[1:])
    uvloop.run(run(settings, slot, port, *supervisor_pid))


if __name__ == "__main__":
    main()

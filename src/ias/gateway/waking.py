"""Cold backends are woken by one call each, however many requests wait for them, in however many workers."""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from ias.contracts import redis_keys
from ias.contracts.routes import Backend
from ias.gateway.redis_connection import RedisAwayError, RedisConnection, pack
from ias.gateway.upstream import BackendPool, UpstreamHead, Upstreams
from ias.gateway.upstream_request import UpstreamRequests

_WAKE_TIMEOUT_S = 120.0
_CLAIM_S = 30
"""After so long another call is made, should the first have come to nothing."""

log = structlog.get_logger("ias.gateway.waking")


class Waking:
    """Wakes backends by vLLM's `POST /wake_up`, below the root of their base URL."""

    def __init__(self, upstreams: Upstreams, requests: UpstreamRequests) -> None:
        self._upstreams = upstreams
        self._requests = requests
        self._redis: RedisConnection | None = None
        self._calls: dict[str, asyncio.Task[None]] = {}
        self._asked_until: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self.calls = 0

    def attach(self, redis: RedisConnection) -> None:
        """The connection that claims are made on."""
        self._redis = redis

    def failures(self, backend: Backend) -> int:
        """Calls in a row that did not wake it."""
        return self._failures.get(backend.id, 0)

    def wake(self, backend: Backend, when_awake: Callable[[], None]) -> None:
        """Wake a backend, unless this or another worker is at it. `when_awake` is called here when it says that it is."""
        now = asyncio.get_running_loop().time()
        if backend.id in self._calls or self._asked_until.get(backend.id, 0.0) > now or self._redis is None:
            return
        self._asked_until[backend.id] = now + 1.0
        command = pack("SET", redis_keys.backend_wake(backend.id), "1", "NX", "EX", _CLAIM_S)
        try:
            self._redis.call(command, self._claimed, (backend, when_awake))
        except RedisAwayError:
            pass  # whoever waits asks again

    def _claimed(self, given: tuple[Backend, Callable[[], None]], reply: Any) -> None:
        backend, when_awake = given
        if reply != b"OK" or backend.id in self._calls:
            return
        self.calls += 1
        task = asyncio.get_running_loop().create_task(self._call(backend, when_awake), name="wake-backend")
        self._calls[backend.id] = task
        task.add_done_callback(lambda _: self._calls.pop(backend.id, None))

    async def _call(self, backend: Backend, when_awake: Callable[[], None]) -> None:
        pool = self._upstreams.pool(backend.url)
        try:
            status = await asyncio.wait_for(self._post(pool, backend), _WAKE_TIMEOUT_S)
        except (OSError, TimeoutError) as error:
            log.warning("wake_failed", backend_id=backend.id, error=str(error) or type(error).__name__)
            status = 0
        if status == 200:
            self._failures.pop(backend.id, None)
            log.info("backend_woken", backend_id=backend.id)
            when_awake()
        else:
            self._failures[backend.id] = self.failures(backend) + 1
            log.warning("wake_refused", backend_id=backend.id, status=status)

    async def _post(self, pool: BackendPool, backend: Backend) -> int:
        connection = await pool.connect()
        answer = _Answer(backend.id)
        head = self._requests.plain_head(pool.path.rpartition("/")[0] + "/wake_up", backend, pool)
        connection.send(answer, head, b"", pool.loop.time() + _WAKE_TIMEOUT_S)
        return await answer.status

    async def close(self) -> None:
        """Give up."""
        calls = list(self._calls.values())
        for task in calls:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


class _Answer:
    """A Receiver that wants the status only."""

    def __init__(self, backend_id: str) -> None:
        self.backend_id = backend_id
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._head: UpstreamHead | None = None

    def head_received(self, head: UpstreamHead) -> bool:
        """See Receiver."""
        self._head = head
        return False

    def raw_received(self, data: bytes) -> bool:
        """See Receiver."""
        del data
        return True

    def body_received(self, data: bytes) -> None:
        """See Receiver."""

    def whole_received(self, head: UpstreamHead, body: bytes) -> None:
        """See Receiver."""
        del body
        self._head = head
        self.answer_ended()

    def answer_ended(self) -> None:
        """See Receiver."""
        if not self.status.done():
            self.status.set_result(0 if self._head is None else self._head.status)

    def answer_failed(self, reason: str) -> None:
        """See Receiver."""
        if not self.status.done():
            self.status.set_exception(ConnectionError(reason))

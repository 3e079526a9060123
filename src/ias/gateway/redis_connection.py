"""One pipelined RESP3 connection to Redis for the whole worker.

Commands of one loop turn leave in one write; replies come back in order and each calls the function that waits for it:
no task and no future on the data path. Invalidations of cached documents arrive as pushes on the same connection, so
they are ordered with the replies: a document read before it changed is dropped after it was cached, never before.
"""

import asyncio
import contextlib
import hashlib
import random
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis
import structlog

Callback = Callable[[Any, Any], None]
"""Gets what was given with the command, and the reply: a value, a `hiredis.ReplyError`, or a RedisAwayError when the
connection was lost before it came. No closure is made for a command."""

_BACKOFF_FIRST_S: Final = 0.05
_BACKOFF_LAST_S: Final = 2.0
_PENDING_MAX: Final = 100_000

log = structlog.get_logger("ias.gateway.redis")


class RedisAwayError(Exception):
    """There is no connection, or it was lost before the reply came: whether the command ran is unknown."""


def _nothing() -> None:
    pass


def pack(*command: str | bytes | int) -> bytes:
    """A command as Redis reads it."""
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # the stub takes it for a 1-tuple
    return packed


class RedisAddress(NamedTuple):
    """Where Redis is and how to enter."""

    host: str
    port: int
    path: str | None
    is_tls: bool
    username: str | None
    password: str | None
    db: int


def parse_redis_url(url: str) -> RedisAddress:
    """The address in a `redis://`, `rediss://` or `unix://` URL.

    Raises:
        ValueError: another scheme, or a database that is no number.
    """
    parts = urlsplit(url)
    username = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password else None
    if parts.scheme == "unix":
        db = parse_qs(parts.query).get("db", ["0"])[0]
        return RedisAddress("", 0, parts.path, False, username, password, int(db))
    if parts.scheme not in ("redis", "rediss"):
        raise ValueError("a Redis URL begins with redis://, rediss:// or unix://")
    db = parts.path.lstrip("/") or parse_qs(parts.query).get("db", ["0"])[0]
    return RedisAddress(
        parts.hostname or "127.0.0.1", parts.port or 6379, None, parts.scheme == "rediss", username, password, int(db)
    )


class _Protocol:
    """The bytes' side: parses replies and pushes, in order."""

    def __init__(self, owner: "RedisConnection") -> None:
        self._owner = owner
        self._reader = hiredis.Reader()
        self.transport: asyncio.Transport | None = None
        self.pending: deque[tuple[Callback, Any]] = deque()
        self.sent = 0
        """Commands so far."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        reader, pending = self._reader, self.pending
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not False:
                if type(reply) is hiredis.PushNotification:
                    self._owner.pushed(reply)
                else:
                    on_reply, given = pending.popleft()
                    on_reply(given, reply)
        except hiredis.ProtocolError:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.lost(self, exc)

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class Script:
    """A Lua script and the digest Redis knows it by."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


class RedisConnection:
    """The connection, kept up: `start` once, `call` any time, `close` at the end.

    `on_ready` is called after each (re)connection, `on_lost` after each loss, `on_invalidated` with the keys that changed
    (None: all of them may have), `before_write` before commands leave: what they speak of may have to be on disk first.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        tracked_prefixes: Sequence[str],
        scripts: Sequence[Script],
        on_ready: Callable[[], None],
        on_lost: Callable[[], None],
        on_invalidated: Callable[[list[bytes] | None], None],
        before_write: Callable[[], None] = _nothing,
    ) -> None:
        self._address = parse_redis_url(url)
        self._timeout_s = timeout_s
        self._tracked_prefixes = tracked_prefixes
        self._scripts = scripts
        self._on_ready = on_ready
        self._on_lost = on_lost
        self._on_invalidated = on_invalidated
        self._before_write = before_write
        self._loop: asyncio.AbstractEventLoop
        """Asked for once: each `get_running_loop` is a system call (getpid) in CPython 3.11."""
        self._protocol: _Protocol | None = None
        self._out: list[bytes] = []
        self._watched = 0
        """Of the commands sent on this connection, how many must have their reply by `_watched_until`."""
        self._watched_until = 0.0
        self._closing = False
        self._keeper: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self.is_ready = False
        self.losses = 0

    # -------------------------------------------------------------- commands

    def call(self, command: bytes, on_reply: Callback, given: Any = None) -> None:
        """Send a packed command; `on_reply(given, reply)` is called exactly once, later.

        Raises:
            RedisAwayError: there is no connection, or far too much waits on it. `on_reply` is not called then.
        """
        protocol = self._protocol
        if not self.is_ready or protocol is None or len(protocol.pending) >= _PENDING_MAX:
            raise RedisAwayError("Redis is away")
        self._send(protocol, command, on_reply, given)

    async def execute(self, *command: str | bytes | int) -> Any:
        """Send a command and wait for its reply, off the data path.

        Raises:
            RedisAwayError: see there.
            hiredis.ReplyError: Redis refused the command.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.call(pack(*command), _resolve, future)
        return await future

    def _send(self, protocol: _Protocol, command: bytes, on_reply: Callback, given: Any) -> None:
        protocol.pending.append((on_reply, given))
        protocol.sent += 1
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(command)

    def _flush(self) -> None:
        self._before_write()
        out, self._out = self._out, []
        if self._protocol is not None and self._protocol.transport is not None:
            self._protocol.transport.write(b"".join(out))

    def load_scripts(self) -> None:
        """Give Redis the scripts again, after somebody made it forget them."""
        for script in self._scripts:
            with contextlib.suppress(RedisAwayError):  # they are loaded with every connection
                self.call(pack("SCRIPT", "LOAD", script.source), ignore_reply)

    def check_deadline(self, now: float) -> None:
        """Give the connection up when a command has waited too long: nothing behind it can be answered either.

        Told the time now and then by the worker's clock, since noting it with each command would cost more: all that was
        sent by one look has its reply within the timeout of that look.
        """
        protocol = self._protocol
        if protocol is None:
            return
        if protocol.sent - len(protocol.pending) >= self._watched:
            self._watched, self._watched_until = protocol.sent, now + self._timeout_s
        elif self._watched_until < now:
            log.warning("redis_deadline_passed", waiting=len(protocol.pending))
            protocol.abort()

    # -------------------------------------------------------------- life

    async def start(self) -> None:
        """Begin to connect, and to reconnect whenever the connection is lost. Returns at once."""
        self._loop = asyncio.get_running_loop()
        self._keeper = asyncio.create_task(self._keep_connected(), name="redis-keeper")

    async def close(self) -> None:
        """Disconnect for good."""
        self._closing = True
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        if self._protocol is not None and self._protocol.transport is not None:
            self._flush()
            self._protocol.transport.close()

    async def _keep_connected(self) -> None:
        backoff_s = _BACKOFF_FIRST_S
        while not self._closing:
            try:
                await asyncio.wait_for(self._connect(), self._timeout_s)
            except (OSError, TimeoutError, RedisAwayError, hiredis.HiredisError) as error:
                log.warning("redis_unreachable", error=str(error) or type(error).__name__, retry_in_s=backoff_s)
                self._drop()
                await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                backoff_s = min(backoff_s * 2, _BACKOFF_LAST_S)
                continue
            backoff_s = _BACKOFF_FIRST_S
            await self._lost.wait()

    async def _connect(self) -> None:
        address = self._address
        loop = asyncio.get_running_loop()
        self._lost = asyncio.Event()
        if address.path is not None:
            _, protocol = await loop.create_unix_connection(self._make_protocol, address.path)
        else:
            context = ssl.create_default_context() if address.is_tls else None
            _, protocol = await loop.create_connection(self._make_protocol, address.host, address.port, ssl=context)
        self._protocol = protocol
        self._watched = 0
        await self._shake_hands(protocol)
        self.is_ready = True
        self._on_ready()

    def _make_protocol(self) -> Any:
        """For asyncio, which knows a protocol by its methods; a base class of its own would slow the compiled build down."""
        return _Protocol(self)

    async def _shake_hands(self, protocol: _Protocol) -> None:
        address = self._address
        hello: tuple[str, ...] = ("HELLO", "3")
        if address.password is not None:
            hello += ("AUTH", address.username or "default", address.password)
        commands: list[tuple[str, ...]] = [hello]
        if address.db:
            commands.append(("SELECT", str(address.db)))
        prefixes = [part for prefix in self._tracked_prefixes for part in ("PREFIX", prefix)]
        commands.append(("CLIENT", "TRACKING", "ON", "BCAST", *prefixes))
        commands += [("SCRIPT", "LOAD", script.source) for script in self._scripts]
        futures = [asyncio.get_running_loop().create_future() for _ in commands]
        for command, future in zip(commands, futures, strict=True):
            self._send(protocol, pack(*command), _resolve, future)
        await asyncio.gather(*futures)

    def _drop(self) -> None:
        if self._protocol is not None:
            self._protocol.abort()

    # -------------------------------------------------------------- what the protocol tells

    def pushed(self, push: list[Any]) -> None:
        """A push: only invalidations concern us."""
        if push[0] == b"invalidate":
            self._on_invalidated(push[1])

    def lost(self, protocol: _Protocol, error: Exception | None) -> None:
        """The connection is gone: everything that waits on it is told, once."""
        if protocol is not self._protocol:
            return
        was_ready, self.is_ready = self.is_ready, False
        self._protocol = None
        self._out.clear()
        pending, protocol.pending = protocol.pending, deque()
        if was_ready:
            self.losses += 1
            if not self._closing:
                log.warning("redis_lost", error=str(error) if error else None, unanswered=len(pending))
            self._on_lost()
        away = RedisAwayError("the connection to Redis was lost")
        for on_reply, given in pending:
            on_reply(given, away)
        self._lost.set()


def ignore_reply(given: Any, reply: Any) -> None:
    """For a command whose reply changes nothing, an error neither."""


def _resolve(future: asyncio.Future[Any], reply: Any) -> None:
    if future.done():
        return
    if isinstance(reply, Exception):
        future.set_exception(reply)
    else:
        future.set_result(reply)

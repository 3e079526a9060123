"""All management services in one process: each service's app as it is, chosen by the path of the request.

`/` lists them, and `/health`, `/ready` and `/metrics` speak for all of them. The apps share nothing but the process: each has its
own state, lifespan, database and metrics, as when `ias serve SERVICE` runs it alone.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from ias.kit.problems import NotFoundError
from ias.kit.web import make_own_headers

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ROUTES: Mapping[str, tuple[str, ...]] = {
    "identity": ("/identity/", "/internal/api-keys", "/internal/service-tokens"),
    "registry": ("/registry/", "/internal/registry"),
    "billing": ("/billing/", "/internal/billing"),
    "analytics": ("/analytics/", "/internal/analytics"),
    "gitops": ("/gitops/", "/internal/gitops"),
}
"""Which paths are whose."""

_END_TIMEOUT_S = 5
"""How long an app's lifespan may take to end after its last word."""

_TEXT = b"text/plain; version=0.0.4; charset=utf-8"
_JSON = b"application/json"
_PROBLEM = b"application/problem+json"


class LifespanError(RuntimeError):
    """A service's app did not start."""

    def __init__(self, service: str, why: str) -> None:
        super().__init__(f"{service} did not start: {why}")
        self.service = service


class ManagementApp:
    """An ASGI app made of the services' apps."""

    def __init__(self, apps: Mapping[str, App], *, version: str) -> None:
        self._apps = dict(apps)
        self._version = version
        self._lifespans = {name: _Lifespan(name, app) for name, app in self._apps.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        if scope["type"] == "lifespan":
            await self._serve_lifespan(receive, send)
        elif scope["type"] == "http":
            await self._serve_request(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    async def _serve_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        name = next((name for name, prefixes in ROUTES.items() if path.startswith(prefixes)), None)
        if name in self._apps:
            await self._apps[name](self._lifespans[name].scope_of(scope), receive, send)
        else:
            await self._answer_itself(scope, _with_own_headers(scope, send))

    async def _answer_itself(self, scope: Scope, send: Send) -> None:
        path = scope["path"]
        if path == "/" and scope["method"] in ("GET", "HEAD"):
            await _answer(send, 200, _JSON, json.dumps(self._index()).encode())
        elif path == "/health":
            await _answer(send, 200, _JSON, json.dumps({"status": "ok", "version": self._version}).encode())
        elif path == "/ready":
            await self._answer_ready(send)
        elif path == "/metrics":
            texts = [(await self._ask(name, path))[1] for name in self._apps]
            await _answer(send, 200, _TEXT, merge_metrics(text.decode() for text in texts).encode())
        else:
            await _answer(send, 404, _PROBLEM, _not_found(path))

    def _index(self) -> dict[str, Any]:
        """Where each service's description is: what a person who opens the bare address looks for."""
        return {"version": self._version, "services": {name: f"/{name}/v1/openapi.json" for name in self._apps}}

    async def _answer_ready(self, send: Send) -> None:
        answers = await asyncio.gather(*(self._ask(name, "/ready") for name in self._apps))
        services = {name: json.loads(body) for name, (_, body) in zip(self._apps, answers, strict=True)}
        away = {
            f"{name} {dependency}": why
            for name, answer in services.items()
            for dependency, why in answer.get("away", {}).items()
        }
        ready = all(status == 200 for status, _ in answers)
        body = {"status": "ready" if ready else "unavailable", "away": away}
        await _answer(send, 200 if ready else 503, _JSON, json.dumps(body).encode())

    async def _ask(self, name: str, path: str) -> tuple[int, bytes]:
        """Status and body of a GET within the process."""
        status, body = 500, b""

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status, body
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                body += message.get("body", b"")

        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [],
            "client": None,
            "server": None,
        }
        await self._apps[name](self._lifespans[name].scope_of(scope), receive, send)
        return status, body

    async def _serve_lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            for lifespan in self._lifespans.values():  # identity first: the others may ask it
                await lifespan.start()
        except LifespanError as error:
            await self._stop_lifespans()
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._stop_lifespans()
        await send({"type": "lifespan.shutdown.complete"})

    async def _stop_lifespans(self) -> None:
        for lifespan in reversed(self._lifespans.values()):
            await lifespan.stop()


class _Lifespan:
    """One app's lifespan, run as a task of its own, as a server would run it."""

    def __init__(self, name: str, app: App) -> None:
        self._name = name
        self._app = app
        self._state: dict[str, Any] = {}
        self._to_app: asyncio.Queue[Message] = asyncio.Queue(maxsize=2)
        self._from_app: asyncio.Queue[Message] = asyncio.Queue(maxsize=2)
        self._task: asyncio.Task[None] | None = None

    def scope_of(self, scope: Scope) -> Scope:
        """The request's scope with this app's own lifespan state."""
        return {**scope, "state": dict(self._state)}

    async def start(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self._state}
        self._task = asyncio.create_task(self._app(scope, self._to_app.get, self._from_app.put))  # type: ignore[arg-type]  # a coroutine function's call is a coroutine
        answer = await self._converse({"type": "lifespan.startup"})
        if answer["type"] != "lifespan.startup.complete":
            await asyncio.wait({self._task}, timeout=_END_TIMEOUT_S)
            cause = self._task.exception() if self._task.done() else None
            raise LifespanError(self._name, answer.get("message") or answer["type"]) from cause

    async def stop(self) -> None:
        if self._task is None or self._task.done():
            return
        await self._converse({"type": "lifespan.shutdown"})
        await asyncio.wait({self._task}, timeout=_END_TIMEOUT_S)

    async def _converse(self, message: Message) -> Message:
        """Send a message; the app's answer, or how it ended when it did not answer."""
        if self._task is None:
            raise RuntimeError("the lifespan was not started")
        await self._to_app.put(message)
        answering = asyncio.create_task(self._from_app.get())
        await asyncio.wait({answering, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            return answering.result()
        answering.cancel()
        error = self._task.exception()
        return {"type": "lifespan.ended", "message": f"{type(error).__name__}: {error}" if error else "it ended"}


def merge_metrics(texts: Any) -> str:
    """One exposition of several: what is said about a metric is said once, its samples stand together."""
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for text in texts:
        metric = ""
        for line in text.splitlines():
            if line.startswith(("# HELP ", "# TYPE ")):
                metric = line.split(" ", 3)[2]
                head = heads.setdefault(metric, [])
                if line not in head:
                    head.append(line)
            elif line.strip():
                samples.setdefault(metric, []).append(line)
    names = [*heads, *(name for name in samples if name not in heads)]
    lines = [line for name in names for line in [*heads.get(name, []), *samples.get(name, [])]]
    return "\n".join(lines) + "\n"


def _not_found(path: str) -> bytes:
    return (
        NotFoundError("There is nothing at this path; `GET /` lists what there is.")
        .render(path)
        .model_dump_json()
        .encode()
    )


def _with_own_headers(scope: Scope, send: Send) -> Send:
    """`send`, with the headers that every service's answers carry."""
    own = make_own_headers(dict(scope["headers"]).get(b"x-request-id", b""))

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *own]
        await send(message)

    return send_with_headers


async def _answer(send: Send, status: int, content_type: bytes, body: bytes) -> None:
    headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

"""The management app: FastAPI with everything that is the same in every service.

Around each request, in this order: a request id (taken over when well-formed, else made), the log context, the body limit, a
trace span, metrics and one access-log line; and whatever went wrong rendered as `application/problem+json`.
"""

import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import structlog
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.routing import APIRoute
from opentelemetry import propagate, trace
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ias import __version__
from ias.contracts.ids import request_id_of, uuid7
from ias.kit.authorization import public
from ias.kit.client_addresses import Networks, find_client_address
from ias.kit.denials import note_denial
from ias.kit.idempotency import SEALING_PURPOSE, Replays
from ias.kit.openapi import complete_document
from ias.kit.problems import (
    BadRequestError,
    ConflictError,
    FieldError,
    HeadersTooLargeError,
    InvalidError,
    NotFoundError,
    ProblemError,
    QueryTooLongError,
    TooLargeError,
    UnavailableError,
)
from ias.kit.redis_documents import open_redis
from ias.kit.request_limits import RequestLimits, Standing, name_address, render_headers
from ias.kit.routing import Router, list_query_parameters
from ias.kit.row_security import reaching_every_org
from ias.kit.sealing import Sealer, decode_secret_key
from ias.kit.settings import ServiceSettings
from ias.kit.telemetry import trace_id_of

log = structlog.get_logger("ias.http")

_REQUEST_ID = re.compile(r"[A-Za-z0-9_\-]{8,80}")
_HEADER_BYTES_MAX = 32_768
_QUERY_BYTES_MAX = 8_192
_UNLIMITED_PATHS = ("/health", "/ready", "/metrics", "/internal/")
"""Asked by the platform itself."""
_SECURITY_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]

_DATA_SQLSTATES = "22"
_CONSTRAINT_SQLSTATES = "23"
_CONTENTION_SQLSTATES = "40"
"""Transaction rollback: two changes waited for each other, and PostgreSQL ended one. It left nothing and may be sent again."""
_AWAY_SQLSTATES = ("08", "53", "57")
"""Classes of SQLSTATE: connection exception, insufficient resources, operator intervention (starting up, shutting down)."""

Check = Callable[[], Awaitable[None]]
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


class Body(BaseModel):
    """A request body: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class Answer(BaseModel):
    """An answer: every field is always present, null when there is nothing to say."""

    model_config = ConfigDict(frozen=True, from_attributes=True)


class Health(Answer):
    """The process runs."""

    status: str
    version: str


class Readiness(Answer):
    """Whether the process can serve. `away` names each dependency that does not answer, with a word on why."""

    status: str
    away: dict[str, str]


class _MethodNotAllowedError(ProblemError):
    status, code, title = 405, "method_not_allowed", "Method not allowed"


def create_app(
    service: str,
    *,
    description: str,
    routers: list[Router],
    lifespan: Lifespan,
    settings: ServiceSettings,
) -> FastAPI:
    """The app of one service. `lifespan` builds the service's parts into `app.state`, `app.state.checks` among them."""
    request_limits = RequestLimits(
        open_redis(settings.redis_url.get_secret_value(), settings.redis_timeout_s), settings
    )

    @asynccontextmanager
    async def with_request_limits(app: FastAPI) -> AsyncIterator[None]:
        try:
            async with lifespan(app):
                yield
        finally:
            await request_limits.close()

    app = FastAPI(
        title=f"IAS {service}",
        version=__version__,
        description=description,
        lifespan=with_request_limits,
        openapi_url=f"/{service}/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
        strict_content_type=True,
        dependencies=[Depends(refuse_unknown_query)],
        redirect_slashes=False,  # the redirect would carry the scheme and host of the request, wrong behind an ingress
    )
    app.state.checks = {}
    app.state.registry = CollectorRegistry()
    app.state.request_limits = request_limits
    app.state.replays = Replays(Sealer(decode_secret_key(settings.secret_key.get_secret_value()), SEALING_PURPOSE))
    for router in routers:
        app.include_router(router)
    app.include_router(_health_router())
    complete_document(app)
    _render_problems(app)
    app.add_middleware(
        RequestContext,
        metrics=HttpMetrics(service, app.state.registry),
        request_limits=request_limits,
        settings=settings,
    )
    return app


async def refuse_unknown_query(request: Request) -> None:
    """Every operation takes the query parameters that its OpenAPI document names and no others.

    A mistyped filter would otherwise list everything, and a `dry_run` where there is none would write.

    Raises:
        InvalidError: naming each parameter that is not known.
    """
    route: APIRoute = request.scope["route"]
    if not request.url.query or not route.include_in_schema:
        return
    known = list_query_parameters(route)
    unknown = [name for name in dict.fromkeys(request.query_params.keys()) if name not in known]
    if unknown:
        errors = [FieldError(pointer=name[:100], detail="There is no such parameter.") for name in unknown[:20]]
        raise InvalidError("Unknown query parameters: " + ", ".join(error.pointer for error in errors), errors=errors)


def create_worker_app(*, checks: Mapping[str, Check], registry: CollectorRegistry) -> FastAPI:
    """`/health`, `/ready` and `/metrics` for a process that serves nothing else: the event consumers."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.state.checks = checks
    app.state.registry = registry
    app.include_router(_health_router())
    return app


def _health_router() -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/health", openapi_extra=public("liveness"))
    async def health() -> Health:
        return Health(status="ok", version=__version__)

    @router.get("/ready", openapi_extra=public("readiness"))
    async def ready(request: Request) -> JSONResponse:
        away = await find_away(request.app.state.checks)
        body = Readiness(status="unavailable" if away else "ready", away=away)
        return JSONResponse(body.model_dump(), status_code=503 if away else 200)

    @router.get("/metrics", openapi_extra=public("scraped inside the cluster"))
    async def metrics(request: Request) -> Response:
        return PlainTextResponse(generate_latest(request.app.state.registry), media_type="text/plain; version=0.0.4")

    return router


async def find_away(checks: Mapping[str, Check]) -> dict[str, str]:
    """Each dependency that does not answer, with the kind of failure (never its text, which may hold addresses)."""
    away = {}
    for name, check in checks.items():
        try:
            await check()
        except Exception as error:  # noqa: BLE001  # whatever a driver raises, the dependency is away
            away[name] = type(error).__name__
    return away


class HttpMetrics:
    """What every management API counts about itself."""

    def __init__(self, service: str, registry: CollectorRegistry) -> None:
        labels = ("method", "route", "status")
        self.requests = Counter(
            f"ias_{service}_http_requests", "Management requests answered.", labels, registry=registry
        )
        self.duration_s = Histogram(
            f"ias_{service}_http_request_duration_seconds", "Time to answer.", labels[:2], registry=registry
        )


class RequestContext:
    """The ASGI middleware described at the top of this module."""

    def __init__(
        self, app: ASGIApp, *, metrics: HttpMetrics, request_limits: RequestLimits, settings: ServiceSettings
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._request_limits = request_limits
        self._body_bytes_max = settings.request_body_bytes_max
        self._trusted_proxies = settings.trusted_proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        _see_through_proxies(scope, self._trusted_proxies)
        standings: list[Standing] = scope.setdefault("state", {}).setdefault("standings", [])
        request_id = _accept_request_id(headers.get(b"x-request-id", b"").decode("latin-1"))
        scope["state"]["request_id"] = request_id
        started = time.perf_counter()
        status = 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [(b"x-request-id", request_id.encode()), *_SECURITY_HEADERS]
                message["headers"] = [*message.get("headers", []), *own, *render_headers(standings)]
            await send(message)

        tracer = trace.get_tracer("ias.http", tracer_provider=getattr(scope["app"].state, "tracing", None))
        context = propagate.extract(
            {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}
        )
        with (
            reaching_every_org(),  # until the caller is known
            tracer.start_as_current_span(f"{scope['method']} {scope['path']}", context=context) as span,
            structlog.contextvars.bound_contextvars(request_id=request_id, trace_id=trace_id_of(span)),
        ):
            try:
                await self._serve(scope, receive, send_with_headers)
            except Exception:  # whatever was not foreseen becomes a 500 whose cause is in the log alone
                log.exception("unexpected failure", path=scope["path"])
                await _internal_error(scope)(scope, receive, send_with_headers)
            route = getattr(scope.get("route"), "path_format", None) or getattr(scope.get("route"), "path", "unmatched")
            span.set_attribute("http.response.status_code", status)
            span.update_name(f"{scope['method']} {route}")
            self._metrics.requests.labels(scope["method"], route, status).inc()
            self._metrics.duration_s.labels(scope["method"], route).observe(time.perf_counter() - started)
            log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                duration_ms=round((time.perf_counter() - started) * 1000, 1),
            )

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check_sizes(scope)
            if not scope["path"].startswith(_UNLIMITED_PATHS):
                client = name_address(scope["client"][0] if scope.get("client") else "")
                await self._request_limits.take(self._request_limits.address, client, scope["state"]["standings"])
        except ProblemError as problem:
            await _problem_response(problem, scope["path"])(scope, receive, send)
            return
        seen = 0

        async def receive_bounded() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._body_bytes_max:
                raise self._too_large()
            return message

        await self._app(scope, receive_bounded, send)

    def _check_sizes(self, scope: Scope) -> None:
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._body_bytes_max:
            raise self._too_large()
        if len(scope["query_string"]) > _QUERY_BYTES_MAX:
            raise QueryTooLongError(f"The query is over the limit of {_QUERY_BYTES_MAX} bytes.")
        if sum(len(name) + len(value) for name, value in scope["headers"]) > _HEADER_BYTES_MAX:
            raise HeadersTooLargeError(f"The headers are over the limit of {_HEADER_BYTES_MAX} bytes.")

    def _too_large(self) -> TooLargeError:
        return TooLargeError(
            f"The body is over the limit of {self._body_bytes_max} bytes.", headers={"Connection": "close"}
        )


def _see_through_proxies(scope: Scope, trusted: Networks) -> None:
    peer = scope.get("client")
    if peer and trusted:
        forwarded = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
        scope["client"] = (find_client_address(peer[0], forwarded, trusted), peer[1])


def make_own_headers(given_request_id: bytes) -> list[tuple[bytes, bytes]]:
    """What every answer carries: the request id (the given one when it is well-formed, else a new one) and what browsers may do.

    For answers that are given before a service's app is asked; the app adds its own.
    """
    request_id = _accept_request_id(given_request_id.decode("latin-1"))
    return [(b"x-request-id", request_id.encode()), *_SECURITY_HEADERS]


def _accept_request_id(given: str) -> str:
    return given if _REQUEST_ID.fullmatch(given) else request_id_of(uuid7())


def _problem_response(problem: ProblemError, path: str) -> JSONResponse:
    return JSONResponse(
        problem.render(path).model_dump(),
        status_code=problem.status,
        headers=problem.headers,
        media_type="application/problem+json",
    )


def _internal_error(scope: Scope) -> JSONResponse:
    return _problem_response(ProblemError("Something went wrong on our side; the request id finds it."), scope["path"])


def _render_problems(app: FastAPI) -> None:
    @app.exception_handler(ProblemError)
    async def problem(request: Request, error: ProblemError) -> JSONResponse:
        note_denial(request, error)
        return _problem_response(error, request.url.path)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return _problem_response(_explain_validation(error), request.url.path)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error.__cause__, ProblemError):  # the body limit, raised while FastAPI was reading the body
            return _problem_response(error.__cause__, request.url.path)
        known: dict[int, ProblemError] = {
            404: NotFoundError("There is nothing at this path."),
            405: _MethodNotAllowedError("This path does not take this method.", headers=dict(error.headers or {})),
        }
        return _problem_response(known.get(error.status_code, BadRequestError(str(error.detail))), request.url.path)

    @app.exception_handler(OperationalError)
    @app.exception_handler(PoolTimeoutError)
    @app.exception_handler(OSError)
    async def database_away(request: Request, error: Exception) -> JSONResponse:
        log.warning("a dependency is away", error=type(error).__name__)
        return _problem_response(UnavailableError("A dependency of this service is away."), request.url.path)

    @app.exception_handler(DBAPIError)
    async def database_failed(request: Request, error: DBAPIError) -> JSONResponse:
        sqlstate: str = getattr(error.orig, "sqlstate", None) or ""
        if error.connection_invalidated or sqlstate.startswith(_AWAY_SQLSTATES):
            return _problem_response(UnavailableError("The database connection was lost."), request.url.path)
        if sqlstate.startswith(
            _CONSTRAINT_SQLSTATES
        ):  # a race that `core` did not foresee; what it foresees, it explains
            return _problem_response(ConflictError("It contradicts what is stored."), request.url.path)
        if sqlstate.startswith(_CONTENTION_SQLSTATES):
            log.warning("two changes waited for each other", sqlstate=sqlstate, path=request.url.path)
            again = UnavailableError("Another change was in the way; try again.", headers={"Retry-After": "1"})
            return _problem_response(again, request.url.path)
        if sqlstate.startswith(_DATA_SQLSTATES):  # a NUL in a text, above all; the second net behind the schemas
            return _problem_response(InvalidError("A value is not one that can be stored."), request.url.path)
        raise error


def _explain_validation(error: RequestValidationError) -> ProblemError:
    details: list[dict[str, Any]] = list(error.errors())
    if any(detail["type"] == "json_invalid" for detail in details):
        return BadRequestError("The body is not valid JSON.", code="invalid_json")
    fields = [FieldError(pointer=_pointer(detail["loc"]), detail=detail["msg"]) for detail in details]
    return InvalidError(
        "One or more fields are not valid: " + "; ".join(f"{f.pointer or 'body'}: {f.detail}" for f in fields[:5]),
        errors=fields,
    )


def _pointer(location: tuple[str | int, ...]) -> str:
    """A JSON pointer into the body (empty for the body itself), or the name of a parameter."""
    place, *rest = location
    if place == "body":
        return "".join(f"/{part}" for part in rest)
    return ".".join(str(part) for part in rest) or str(place)

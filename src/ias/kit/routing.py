"""The router of management routes. What holds for every read and every write happens here; no route does anything for it.

- A write (POST, PUT, PATCH, DELETE with a caller) is one transaction (`kit.writes`), takes `dry_run`, and `Idempotency-Key` (POST)
  or `If-Match` (the others). Marked with `in_steps(...)` it commits by itself; `changes_nothing(...)` takes it out altogether.
- Every answer that shows one object has an `ETag`; a GET takes `If-None-Match`.
- A body that says a name twice is refused (`kit.json_bodies`).
- Every request counts against a rate limit (`kit.request_limits`): of its caller, or of its address where it asks for credentials.
"""

from collections.abc import Callable, Coroutine, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict

from ias.kit.authorization import authenticate, authorize, identify
from ias.kit.cursors import Page
from ias.kit.etags import is_known, make_etag
from ias.kit.idempotency import Answered, AnsweredBeforeError, Claim, Replays
from ias.kit.json_bodies import StrictRequest
from ias.kit.request_limits import RequestLimits, name_address
from ias.kit.writes import NotedChange, Write, find_write, writing

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
REPLAYED_HEADER = "idempotency-replayed"
_KEPT_HEADERS = ("content-type", "etag", "location")

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class ChangeAnswer(BaseModel):
    """One thing that would be done, as the audit log would tell it."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    action: str
    target_kind: str
    target_id: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class DryRunAnswer(BaseModel):
    """What a write would change. Ids of what it would create are made up anew each time."""

    model_config = ConfigDict(frozen=True)

    dry_run: bool
    changes: list[ChangeAnswer]


def changes_nothing(reason: str) -> dict[str, Any]:
    """`openapi_extra` of a POST that is no write, with the reason why."""
    return {"x-ias-changes-nothing": reason}


def in_steps(reason: str) -> dict[str, Any]:
    """`openapi_extra` of a write that commits in steps, with the reason why. It has to heed `is_dry_run()` by itself.

    Its Idempotency-Key is checked for its form alone: such a write must be one that can be repeated.
    """
    return {"x-ias-in-steps": reason}


class Router(APIRouter):
    """An `APIRouter` whose routes keep the conventions."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, route_class=ManagementRoute)

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Add a route, with the parameters that its kind takes."""
        kind = _kind_of(path, endpoint, options)
        dependencies = [*(options.pop("dependencies", None) or [])]
        responses = {**(options.pop("responses", None) or {})}
        if kind == "write":
            posts = "POST" in options["methods"]
            dependencies.append(Depends(_take_terms_of_post if posts else _take_terms))
            if options.get("status_code") not in (None, 200):
                responses = {200: {"model": DryRunAnswer, "description": "Of a dry run"}, **responses}
        elif kind == "single":
            dependencies.append(Depends(_declare_if_none_match))
        super().add_api_route(path, endpoint, dependencies=dependencies, responses=responses, **options)


class ManagementRoute(APIRoute):
    """A route of a `Router`."""

    def get_route_handler(self) -> Handler:
        """The handler with the conventions of its kind around it."""
        handle = _around_body(super().get_route_handler())
        extra = self.openapi_extra or {}
        options = {"methods": self.methods, "openapi_extra": extra, "response_model": self.response_model}
        kind = _kind_of(self.path, self.endpoint, options)
        if kind == "single":
            handle = _around_single(handle)
        elif kind == "write":
            handle = _around_write(handle, in_steps="x-ias-in-steps" in extra)
        writes = bool((self.methods or set()) & WRITES)
        guard = _find_guard(self.dependant)
        if guard is not None:
            return _around_caller(handle, guard=guard, writes=writes)
        return _around_stranger(handle) if writes and "x-ias-public" in extra else handle


def _kind_of(path: str, endpoint: Callable[..., Any], options: dict[str, Any]) -> str:
    """`write`, `single` (a GET of one object), or `other`."""
    methods = set(options.get("methods") or {"GET"})
    if methods & WRITES:
        extra = options.get("openapi_extra") or {}
        guarded = _find_guard(get_dependant(path=path, call=endpoint)) is not None
        return "write" if guarded and "x-ias-changes-nothing" not in extra else "other"
    model = options.get("response_model")
    if not isinstance(model, type):
        model = getattr(endpoint, "__annotations__", {}).get("return")
    is_page = isinstance(model, type) and issubclass(model, Page)
    is_object = isinstance(model, type) and issubclass(model, BaseModel)
    return "single" if is_object and not is_page and options.get("include_in_schema", True) else "other"


def list_query_parameters(route: APIRoute) -> set[str]:
    """The query parameters that a route takes, its dependencies' among them: those that the OpenAPI document names."""
    return {field.alias for one in (route.dependant, *_walk(route.dependant)) for field in one.query_params}


def _find_guard(dependant: Dependant) -> str | None:
    """The permission that a route asks its caller for, or `signed-in`."""
    guards = (inner for inner in _walk(dependant) if inner.call in (authorize, authenticate))
    return next((scope for inner in guards for scope in inner.own_oauth_scopes or ()), None)


def _walk(dependant: Dependant) -> Iterator[Dependant]:
    for inner in dependant.dependencies:
        yield inner
        yield from _walk(inner)


def _around_body(handle: Handler) -> Handler:
    async def read_strictly(request: Request) -> Response:
        return await handle(StrictRequest(request.scope, request.receive))

    return read_strictly


def _around_caller(handle: Handler, *, guard: str, writes: bool) -> Handler:
    async def limit(request: Request) -> Response:
        request.state.guard = guard
        actor = await identify(request)  # before anything else of the request is looked at
        limits: RequestLimits = request.app.state.request_limits
        await limits.take(limits.writes if writes else limits.reads, actor.sub, request.state.standings)
        return await handle(request)

    return limit


def _around_stranger(handle: Handler) -> Handler:
    async def limit(request: Request) -> Response:
        limits: RequestLimits = request.app.state.request_limits
        address = name_address(request.client.host if request.client else "")
        await limits.take(limits.credentials, address, request.state.standings)
        return await handle(request)

    return limit


def _around_write(handle: Handler, *, in_steps: bool) -> Handler:
    async def write_once(request: Request) -> Response:
        async with writing(in_steps=in_steps) as write:
            try:
                response = await handle(request)
            except AnsweredBeforeError as before:
                return _replay(before.answer)
            if response.status_code >= 400:
                return response
            return await _finish(write, response)

    return write_once


async def _finish(write: Write, response: Response) -> Response:
    if write.dry_run:
        return _answer_dry_run(await write.rehearse())
    body = bytes(response.body)
    if body and response.headers.get("content-type") == "application/json":
        response.headers["etag"] = make_etag(body)
    kept = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    for name, value in (await write.commit(Answered(response.status_code, kept, body))).items():
        response.headers[name] = value
    return response


def _answer_dry_run(changes: list[NotedChange]) -> Response:
    answer = DryRunAnswer(dry_run=True, changes=[ChangeAnswer.model_validate(change) for change in changes])
    return JSONResponse(answer.model_dump(mode="json"))


def _replay(answer: Answered) -> Response:
    return Response(answer.body, answer.status, {**answer.headers, REPLAYED_HEADER: "true"})


def _around_single(handle: Handler) -> Handler:
    async def read(request: Request) -> Response:
        response = await handle(request)
        body = getattr(response, "body", b"")
        if response.status_code == 200 and body and response.headers.get("content-type") == "application/json":
            response.headers["etag"] = etag = make_etag(bytes(body))
            if is_known(request.headers.get("if-none-match"), etag):
                return Response(status_code=304, headers={"etag": etag})
        return response

    return read


_DryRun = Annotated[
    bool,
    Query(description="Only try: everything is checked and nothing is changed. A 200 tells what would be."),
]
_IfMatch = Annotated[
    str | None,
    Header(
        max_length=500,
        description="`ETag` of what the change was decided on; when it is at another version by now, the answer is 412.",
    ),
]
_IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=200,
        pattern=r"^[!-~]+$",
        description="Printable ASCII of the caller's choice. The same request under the same key is done once within 24"
        " hours; after that its answer is repeated, with `idempotency-replayed: true`.",
    ),
]


async def _take_terms(dry_run: _DryRun = False, if_match: _IfMatch = None) -> None:
    write = find_write()
    if write is not None:
        write.dry_run = dry_run
        write.if_match = if_match


async def _take_terms_of_post(
    request: Request, dry_run: _DryRun = False, idempotency_key: _IdempotencyKey = None
) -> None:
    write = find_write()
    if write is None:
        return
    write.dry_run = dry_run
    if idempotency_key is not None:
        replays: Replays = request.app.state.replays
        claim = Claim.of(
            principal=request.state.actor.sub,
            path=request.url.path,
            key=idempotency_key,
            query=request.url.query,
            body=await request.body(),
        )
        write.replaying = replays, claim


async def _declare_if_none_match(
    if_none_match: Annotated[
        str | None,
        Header(
            max_length=2000, description="`ETag` of an answer the caller has; while it is the same, 304 without a body."
        ),
    ] = None,
) -> None:
    """For the OpenAPI document: the route's handler is the one that heeds it."""

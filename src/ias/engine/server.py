"""The replica over HTTP: vLLM's paths, answers and errors.

A client that disconnects aborts its request at once, streamed or not. What operators and probes ask is in `operations.py`.
"""

import asyncio
import hmac
import time
import zlib
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ias.contracts.ids import uuid7
from ias.engine.answers import Envelope, Usage, make_embeddings, make_usage
from ias.engine.bodies import encode, event, json_response, read_body
from ias.engine.faults import Fate, FaultSource, TornConnectionError
from ias.engine.generation import Answer, Emission, answer_seed, embed
from ias.engine.metrics import EngineMetrics
from ias.engine.operations import Operations, Refuse, Served
from ias.engine.protocol import (
    EMBEDDING_DIMENSIONS_DEFAULT,
    EMBEDDING_DIMENSIONS_MAX,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    EngineError,
    GenerationRequest,
    R,
    TokenizeRequest,
    bad_request,
    check_context,
    check_generation,
    decode,
    make_limits,
)
from ias.engine.request_log import note_served
from ias.engine.settings import EngineSettings, build_replica
from ias.engine.tokenizer import tokenize, tokenize_chat, tokenize_ids
from ias.engine.wall_clock import AbortedError, Job, WallReplica

HANG_MAX_S = 3600
"""A hanging request is let go after this long, should its client never leave."""

T = TypeVar("T")


class Note(Protocol):
    """Says what a request was served so far."""

    def __call__(self, *, cached_tokens: int, completion_tokens: int) -> None:
        """Replace what was said before."""


def build_app(settings: EngineSettings, refuse: Refuse | None = None) -> ASGIApp:
    """The replica as an ASGI app; `refuse` is how faults stop it from listening.

    Raises:
        ValueError: the settings contradict each other.
    """
    machine = build_replica(settings)
    metrics = EngineMetrics(
        settings.model, machine, context_length=settings.context_length, names=settings.metric_names
    )
    replica = WallReplica(machine, metrics, speed=settings.speed, waiting_max=settings.waiting_max)
    served = Served(settings)
    faults = FaultSource(settings.seed, settings.faults)
    engine = _Engine(settings, served, replica, metrics, faults)
    operations = Operations(
        settings,
        served=served,
        machine=machine,
        replica=replica,
        metrics=metrics,
        faults=faults,
        refuse=refuse or _cannot_refuse,
    )
    app = Starlette(
        routes=[*engine.routes(), *operations.routes()],
        exception_handlers={EngineError: _render_refusal, HTTPException: _render_http_error},
    )
    return app if settings.api_key is None else _Guard(app, settings.api_key)


class _Guard:
    """Asks for the API key where vLLM does: under /v1."""

    def __init__(self, app: ASGIApp, api_key: str) -> None:
        self._app = app
        self._wanted = f"Bearer {api_key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1"):
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, self._wanted):
                await json_response({"error": "Unauthorized"}, 401)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class _Engine:
    """The handlers of inference, and the replica behind them."""

    def __init__(
        self,
        settings: EngineSettings,
        served: Served,
        replica: WallReplica,
        metrics: EngineMetrics,
        faults: FaultSource,
    ) -> None:
        self._settings = settings
        self._served = served
        self._replica = replica
        self._metrics = metrics
        self._faults = faults

    def routes(self) -> list[Route]:
        return [
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/completions", self.completions, methods=["POST"]),
            Route("/v1/embeddings", self.embeddings, methods=["POST"]),
            Route("/tokenize", self.tokenize, methods=["POST"]),
        ]

    async def chat(self, request: Request) -> Response:
        wanted = await self._read(request, ChatRequest)
        prompt = _tokenize_messages(wanted.messages)
        envelope = Envelope(_answer_id(request, "chatcmpl"), "chat", int(time.time()), self._name(wanted.model))
        return await self._generate(request, wanted, envelope, [prompt])

    async def completions(self, request: Request) -> Response:
        wanted = await self._read(request, CompletionRequest)
        prompts = _tokenize_input(wanted.prompt, "prompt")
        envelope = Envelope(_answer_id(request, "cmpl"), "text", int(time.time()), self._name(wanted.model))
        echoed = ["".join(prompt) for prompt in prompts] if wanted.echo else None
        return await self._generate(request, wanted, envelope, prompts, echoed)

    async def embeddings(self, request: Request) -> Response:
        wanted = await self._read(request, EmbeddingRequest)
        texts = _tokenize_input(wanted.input, "input")
        dimensions = wanted.dimensions or EMBEDDING_DIMENSIONS_DEFAULT
        if not 1 <= dimensions <= EMBEDDING_DIMENSIONS_MAX:
            raise bad_request(f"dimensions must be between 1 and {EMBEDDING_DIMENSIONS_MAX}.", "dimensions")
        check_context(max(map(len, texts)), 1, None, self._settings.context_length)
        fate = self._faults.draw()
        if refusal := await _suffer(request, fate):
            return refusal
        vectors = [await asyncio.to_thread(embed, self._settings.seed, text, dimensions) for text in texts]
        prompt_tokens = sum(map(len, texts))
        self._metrics.count_embedding(prompt_tokens)
        note_served(request, prompt_tokens=prompt_tokens, cached_tokens=0, completion_tokens=0)
        body = make_embeddings(
            answer_id=_answer_id(request, "embd"),
            model=self._name(wanted.model),
            created=int(time.time()),
            vectors=vectors,
            encoding_format=wanted.encoding_format,
            prompt_tokens=prompt_tokens,
        )
        return json_response(body) if fate.cut_after is None else _TornResponse(encode(body))

    async def tokenize(self, request: Request) -> Response:
        """VLLM's /tokenize. The ids are the engine's own; each stands for one piece of text."""
        wanted = await self._read(request, TokenizeRequest)
        if wanted.messages is not None:
            pieces = _tokenize_messages(wanted.messages)
        elif wanted.prompt is not None:
            pieces = tokenize(wanted.prompt)
        else:
            raise bad_request("prompt or messages must be given.", "prompt")
        return json_response(
            {
                "count": len(pieces),
                "max_model_len": self._settings.context_length,
                "tokens": [zlib.crc32(piece.encode("utf-8", "surrogatepass")) for piece in pieces],
                "token_strs": pieces if wanted.return_token_strs else None,
            }
        )

    async def _read(self, request: Request, kind: type[R]) -> R:
        wanted = decode(await read_body(request), request.headers.get("content-type", ""), kind)
        self._served.find_lora(wanted.model)
        return wanted

    def _name(self, wanted: str | None) -> str:
        return wanted or self._settings.model

    async def _generate(
        self,
        request: Request,
        wanted: GenerationRequest,
        envelope: Envelope,
        prompts: Sequence[Sequence[str]],
        echoed: Sequence[str] | None = None,
    ) -> Response:
        check_generation(wanted, priorities=self._settings.scheduling_policy == "priority")
        job = self._make_job(wanted, prompts)
        if self._replica.is_full:
            raise EngineError(503, "ServiceUnavailableError", "The queue of waiting requests is full.")
        fate = self._faults.draw()
        if refusal := await _suffer(request, fate):
            return refusal
        note = partial(note_served, request, prompt_tokens=job.prompt_tokens)
        answering = _Answering(self._replica, job, wanted, envelope, echoed, note)
        if wanted.stream:
            events = _break_off(answering.stream(), fate, note)
            return StreamingResponse(events, media_type="text/event-stream", headers={"cache-control": "no-cache"})
        if fate.stalls_after is not None:
            return await _hang(request)
        body = await _unless_disconnected(request, answering.complete())
        if body is None:
            return Response(status_code=499)
        return json_response(body) if fate.cut_after is None else _TornResponse(encode(body))

    def _make_job(self, wanted: GenerationRequest, prompts: Sequence[Sequence[str]]) -> Job:
        answers = []
        for prompt in prompts:
            limits = make_limits(wanted, len(prompt), self._settings.context_length)
            answers += [
                Answer(answer_seed(self._settings.seed, prompt, wanted.seed, index), limits)
                for index in range(wanted.choices)
            ]
        lora = self._served.find_lora(wanted.model)
        return Job(prompts, answers, wanted.cache_salt, lora, wanted.priority)


@dataclass(frozen=True, slots=True)
class _Answering:
    """One request's way from the replica to the client."""

    replica: WallReplica
    job: Job
    wanted: GenerationRequest
    envelope: Envelope
    echoed: Sequence[str] | None
    note: Note

    @property
    def _before(self) -> list[str]:
        """What each answer begins with: its prompt, where it is to be repeated."""
        each = [text for text in self.echoed or () for _ in range(self.wanted.choices)]
        return each or [""] * len(self.job.answers)

    async def complete(self) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        texts = [[text] for text in self._before]
        lasts = [Emission("")] * len(self.job.answers)
        cached_tokens = 0
        try:
            async with aclosing(self.replica.run(self.job)) as steps:
                async for step in steps:
                    cached_tokens = step.cached_tokens
                    for index, emission in step.emissions:
                        texts[index].append(emission.text)
                        lasts[index] = emission
        except AbortedError as error:
            raise EngineError(500, "InternalServerError", str(error)) from error
        self.note(cached_tokens=cached_tokens, completion_tokens=self.job.completion_tokens)
        usage = make_usage(self.job.prompt_tokens, self.job.completion_tokens, cached_tokens)
        return self.envelope.whole(["".join(parts) for parts in texts], lasts, usage)

    async def stream(self) -> AsyncIterator[tuple[bytes, int, int]]:
        """Events, each with the number of tokens generated by then and of cached ones."""
        options = self.wanted.stream_options
        include_usage = bool(options and options.include_usage)
        continuous = include_usage and bool(options and options.continuous_usage_stats)
        tokens = cached_tokens = 0

        def usage() -> Usage:
            return make_usage(self.job.prompt_tokens, tokens, cached_tokens)

        before = self._before
        if self.envelope.kind == "chat":
            yield event(self.envelope.opening(len(before), usage() if continuous else None)), 0, 0
        elif any(before):
            yield event(self.envelope.chunk([(index, Emission(text)) for index, text in enumerate(before)], None)), 0, 0
        try:
            async with aclosing(self.replica.run(self.job)) as steps:
                async for step in steps:
                    tokens, cached_tokens = step.completion_tokens, step.cached_tokens
                    if continuous:
                        yield event(self.envelope.chunk(step.emissions, usage())), tokens, cached_tokens
                    elif any(emission.text or emission.finish_reason for _, emission in step.emissions):
                        yield event(self.envelope.chunk(step.emissions, None)), tokens, cached_tokens
        except AbortedError as error:
            yield event(EngineError(500, "InternalServerError", str(error)).body()), tokens, cached_tokens
        else:
            if include_usage:
                yield event(self.envelope.usage_chunk(usage())), tokens, cached_tokens
        yield b"data: [DONE]\n\n", tokens, cached_tokens


class _TornResponse(Response):
    """Sends its head and half of its body, then tears the connection: a fault."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's signature
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        body = bytes(self.body)
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        raise TornConnectionError


async def _suffer(request: Request, fate: Fate) -> Response | None:
    """The answer of a request that a fault hits before it is served."""
    if fate.error_status is not None:
        raise EngineError(fate.error_status, "InternalServerError", "This replica was told to fail.")
    return await _hang(request) if fate.hangs else None


async def _hang(request: Request) -> Response:
    """Answer nothing until the client leaves."""
    try:
        async with asyncio.timeout(HANG_MAX_S):
            await _wait_for_disconnect(request)
    except TimeoutError:
        pass
    return Response(status_code=499)


async def _break_off(events: AsyncIterator[tuple[bytes, int, int]], fate: Fate, note: Note) -> AsyncIterator[bytes]:
    """The events, up to where a fault stops them."""
    async for data, tokens, cached_tokens in events:
        if fate.stalls_after is not None and tokens > fate.stalls_after:
            await asyncio.sleep(HANG_MAX_S)  # ends when the client leaves
            return
        if fate.cut_after is not None and tokens > fate.cut_after:
            raise TornConnectionError
        note(cached_tokens=cached_tokens, completion_tokens=tokens)
        yield data


def _cannot_refuse(_: float) -> None:
    """Without a listener of its own, an app cannot stop listening."""
    raise bad_request("This replica does not own its listener, and cannot refuse connections.", "refuse_connections_s")


async def _unless_disconnected(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of the work; None, with the work cancelled, where the client goes away first."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_wait_for_disconnect(request))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _tokenize_messages(messages: list[dict[str, Any]]) -> list[str]:
    try:
        return tokenize_chat(messages)
    except (AttributeError, TypeError) as error:
        raise bad_request("messages hold content of a form that is not known.", "messages") from error


def _tokenize_input(given: str | list[Any], field: str) -> list[list[str]]:
    """Each prompt of the four forms that OpenAI allows: a text, texts, token ids, lists of token ids."""
    if isinstance(given, str):
        return [tokenize(given)]
    if given and all(isinstance(item, str) for item in given):
        return [tokenize(item) for item in given]
    if given and all(_is_token(item) for item in given):
        return [tokenize_ids(given)]
    if given and all(isinstance(item, list) and item and all(map(_is_token, item)) for item in given):
        return [tokenize_ids(item) for item in given]
    raise bad_request(f"{field} must be a text, a list of texts, or token ids, and not empty.", field)


def _is_token(item: Any) -> bool:
    return type(item) is int and item >= 0


def _answer_id(request: Request, prefix: str) -> str:
    return f"{prefix}-{request.headers.get('x-request-id') or uuid7().hex}"


async def _render_refusal(_: Request, error: Exception) -> Response:
    if not isinstance(error, EngineError):
        raise error
    return json_response(error.body(), error.status)


async def _render_http_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return json_response({"detail": error.detail}, error.status_code)

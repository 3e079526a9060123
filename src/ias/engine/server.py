"""The replica over HTTP: vLLM's paths, answers and errors.

A client that disconnects aborts its request within one step, as with vLLM, streamed or not.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from ias import __version__
from ias.contracts.ids import uuid7
from ias.engine.answers import Envelope, Usage, make_embeddings, make_model, make_usage
from ias.engine.generation import Answer, Emission, answer_seed, embed
from ias.engine.metrics import EngineMetrics
from ias.engine.protocol import (
    EMBEDDING_DIMENSIONS_DEFAULT,
    EMBEDDING_DIMENSIONS_MAX,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    EngineError,
    GenerationRequest,
    R,
    bad_request,
    check_generation,
    decode,
    make_limits,
)
from ias.engine.replica import Capacity, Job, Replica
from ias.engine.request_log import RequestLog
from ias.engine.tokenizer import tokenize, tokenize_chat, tokenize_ids

BODY_BYTES_MAX = 64 * 1024 * 1024
SHUTDOWN_TIMEOUT_S = 5

T = TypeVar("T")

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What one replica serves, and how fast."""

    model: str
    seed: int = 0
    tokens_per_second: float = 50.0
    """Per answer; 0 is as fast as the machine can."""
    ttft_ms: float = 50.0
    context_length: int = 8192


def serve(
    host: str,
    port: int,
    *,
    model: str,
    seed: int,
    tokens_per_second: float,
    ttft_ms: float,
    context_length: int,
    access_log: bool = True,
) -> None:
    """Serve until SIGTERM or SIGINT; then answers that are under way have SHUTDOWN_TIMEOUT_S to end."""
    replica = build_app(EngineSettings(model, seed, tokens_per_second, ttft_ms, context_length))
    app = RequestLog(replica, sys.stderr) if access_log else replica
    uvicorn.run(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
    )


def build_app(settings: EngineSettings) -> Starlette:
    """The replica as an ASGI app."""
    engine = _Engine(settings)
    routes = [
        Route("/v1/chat/completions", engine.chat, methods=["POST"]),
        Route("/v1/completions", engine.completions, methods=["POST"]),
        Route("/v1/embeddings", engine.embeddings, methods=["POST"]),
        Route("/v1/models", engine.models),
        Route("/health", engine.health),
        Route("/version", engine.version),
        Route("/metrics", engine.render_metrics),
    ]
    return Starlette(
        routes=routes, exception_handlers={EngineError: _render_refusal, HTTPException: _render_http_error}
    )


class _Engine:
    """The handlers, and the replica behind them."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._started = int(time.time())
        self._metrics = EngineMetrics(settings.model)
        capacity = Capacity(tokens_per_second=settings.tokens_per_second, ttft_s=settings.ttft_ms / 1000)
        self._replica = Replica(capacity, self._metrics)

    async def chat(self, request: Request) -> Response:
        wanted = await self._read(request, ChatRequest)
        try:
            prompt = tokenize_chat(wanted.messages)
        except (AttributeError, TypeError) as error:
            raise bad_request("messages hold content of a form that is not known.", "messages") from error
        envelope = Envelope(_answer_id(request, "chatcmpl"), "chat", int(time.time()), self._settings.model)
        return await self._generate(request, wanted, envelope, [prompt])

    async def completions(self, request: Request) -> Response:
        wanted = await self._read(request, CompletionRequest)
        prompts = _tokenize_input(wanted.prompt, "prompt")
        envelope = Envelope(_answer_id(request, "cmpl"), "text", int(time.time()), self._settings.model)
        echoed = ["".join(prompt) for prompt in prompts] if wanted.echo else None
        return await self._generate(request, wanted, envelope, prompts, echoed)

    async def embeddings(self, request: Request) -> Response:
        wanted = await self._read(request, EmbeddingRequest)
        texts = _tokenize_input(wanted.input, "input")
        dimensions = wanted.dimensions or EMBEDDING_DIMENSIONS_DEFAULT
        if not 1 <= dimensions <= EMBEDDING_DIMENSIONS_MAX:
            raise bad_request(f"dimensions must be between 1 and {EMBEDDING_DIMENSIONS_MAX}.", "dimensions")
        if max(map(len, texts)) > self._settings.context_length:
            make_limits(GenerationRequest(), max(map(len, texts)), self._settings.context_length)
        vectors = [await asyncio.to_thread(embed, self._settings.seed, text, dimensions) for text in texts]
        prompt_tokens = sum(map(len, texts))
        self._metrics.prompt_tokens.inc(prompt_tokens)
        body = make_embeddings(
            answer_id=_answer_id(request, "embd"),
            model=self._settings.model,
            created=int(time.time()),
            vectors=vectors,
            encoding_format=wanted.encoding_format,
            prompt_tokens=prompt_tokens,
        )
        return _json(body)

    async def models(self, _: Request) -> Response:
        model = make_model(self._settings.model, self._started, self._settings.context_length)
        return _json({"object": "list", "data": [model]})

    async def health(self, _: Request) -> Response:
        return Response(status_code=200)

    async def version(self, _: Request) -> Response:
        return _json({"version": f"ias-sim-{__version__}"})

    async def render_metrics(self, _: Request) -> Response:
        return Response(self._metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _read(self, request: Request, kind: type[R]) -> R:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > BODY_BYTES_MAX:
                raise EngineError(413, "RequestEntityTooLarge", f"The body is over {BODY_BYTES_MAX} bytes.")
        wanted = decode(bytes(body), request.headers.get("content-type", ""), kind)
        if wanted.model not in (None, self._settings.model):
            raise EngineError(404, "NotFoundError", f"The model `{wanted.model}` does not exist.", "model")
        return wanted

    async def _generate(
        self,
        request: Request,
        wanted: GenerationRequest,
        envelope: Envelope,
        prompts: Sequence[Sequence[str]],
        echoed: Sequence[str] | None = None,
    ) -> Response:
        check_generation(wanted)
        if self._replica.is_full:
            raise EngineError(503, "ServiceUnavailableError", "The queue of waiting requests is full.")
        job = self._make_job(wanted, prompts)
        before = [text for text in echoed or () for _ in range(wanted.choices)] or [""] * len(job.answers)
        if wanted.stream:
            events = self._stream(job, wanted, envelope, before)
            return StreamingResponse(events, media_type="text/event-stream", headers={"cache-control": "no-cache"})
        body = await _unless_disconnected(request, self._complete(job, envelope, before))
        return Response(status_code=499) if body is None else _json(body)

    def _make_job(self, wanted: GenerationRequest, prompts: Sequence[Sequence[str]]) -> Job:
        answers = []
        for prompt in prompts:
            limits = make_limits(wanted, len(prompt), self._settings.context_length)
            answers += [
                Answer(answer_seed(self._settings.seed, prompt, wanted.seed, index), limits)
                for index in range(wanted.choices)
            ]
        return Job(prompts, answers, wanted.cache_salt)

    async def _complete(self, job: Job, envelope: Envelope, before: Sequence[str]) -> dict[str, Any]:
        texts = [[text] for text in before]
        lasts = [Emission("")] * len(job.answers)
        cached_tokens = 0
        async with aclosing(self._replica.run(job)) as steps:
            async for step in steps:
                cached_tokens = step.cached_tokens
                for index, emission in step.emissions:
                    texts[index].append(emission.text)
                    lasts[index] = emission
        usage = make_usage(job.prompt_tokens, job.completion_tokens, cached_tokens)
        return envelope.whole(["".join(parts) for parts in texts], lasts, usage)

    async def _stream(
        self, job: Job, wanted: GenerationRequest, envelope: Envelope, before: Sequence[str]
    ) -> AsyncIterator[bytes]:
        options = wanted.stream_options
        include_usage = bool(options and options.include_usage)
        continuous = include_usage and bool(options and options.continuous_usage_stats)

        def usage(cached_tokens: int) -> Usage:
            return make_usage(job.prompt_tokens, job.completion_tokens, cached_tokens)

        cached_tokens = 0
        if envelope.kind == "chat":
            yield _event(envelope.opening(len(job.answers), usage(0) if continuous else None))
        elif any(before):
            yield _event(envelope.chunk([(index, Emission(text)) for index, text in enumerate(before)], None))
        async with aclosing(self._replica.run(job)) as steps:
            async for step in steps:
                cached_tokens = step.cached_tokens
                if continuous:
                    yield _event(envelope.chunk(step.emissions, usage(cached_tokens)))
                elif any(emission.text or emission.finish_reason for _, emission in step.emissions):
                    yield _event(envelope.chunk(step.emissions, None))
        if include_usage:
            yield _event(envelope.usage_chunk(usage(cached_tokens)))
        yield b"data: [DONE]\n\n"


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


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + _encode(body) + b"\n\n"


def _json(body: Any, status: int = 200) -> Response:
    return Response(_encode(body), status_code=status, media_type="application/json")


async def _render_refusal(_: Request, error: Exception) -> Response:
    if not isinstance(error, EngineError):
        raise error
    return _json(error.body(), error.status)


async def _render_http_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return _json({"detail": error.detail}, error.status_code)

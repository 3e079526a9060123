"""Clients of every kind: patient ones, those that leave, those that err, those that ask twice."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from tests.gateway.raw_client import RawClient, connect, request_bytes
from tests.proofs.platform import MODEL

_QUIET_S = 0.4
"""A stream in which nothing has come for so long stands still: a fault of the engine's."""
_ANSWER_TIMEOUT_S = 60.0


@dataclass
class Answered:
    """What a client was told of one request."""

    request_id: str
    status: int
    usage: tuple[int, int, int] | None = None
    """Input, cached input and output tokens."""
    events: int = 0
    """Of the stream, that carried text."""
    is_whole: bool = False


@dataclass
class Load:
    """Requests of one key at one gateway, one at a time for each client, with their answers."""

    port: int
    key: str
    tokens_max: int = 64
    answered: dict[str, Answered] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    pause_s: float = 0.0
    chance: random.Random = field(default_factory=random.Random)

    def kinds(self) -> list[tuple[int, Callable[[], Awaitable[str]]]]:
        return [
            (30, self.ask),
            (30, self.stream),
            (15, self.leave_stream),
            (5, self.leave_early),
            (10, self.ask_twice),
            (5, lambda: self._whole(self._body(model="unknown"))),
            (5, lambda: self._whole(b'{"model":')),
        ]

    async def one(self) -> None:
        """One request of a random kind."""
        kinds = self.kinds()
        ((_, act),) = self.chance.choices(kinds, [weight for weight, _ in kinds])
        await self._note(act)

    async def run_until(self, stop: asyncio.Event) -> None:
        """One request after the other."""
        while not stop.is_set():
            await self.one()
            await asyncio.sleep(self.pause_s)

    async def _note(self, act: Callable[[], Awaitable[str]]) -> None:
        try:
            self.outcomes[await act()] += 1
        except (OSError, EOFError, ValueError) as error:
            self.outcomes[type(error).__name__] += 1

    # ------------------------------------------------------------------ kinds

    async def ask(self) -> str:
        """As SDKs do it: once more where the answer says that it may help."""
        for _ in range(3):
            outcome = await self._whole(self._body())
            if outcome not in ("503", "502", "504"):
                break
            await asyncio.sleep(0.05 * self.chance.random())
        return outcome

    async def stream(self) -> str:
        return await self._stream(leave_after=None)

    async def leave_stream(self) -> str:
        return await self._stream(leave_after=self.chance.randint(0, 20))

    async def leave_early(self) -> str:
        async with connect(self.port) as client:
            await client.send(request_bytes(self._body(), key=self.key))
            await asyncio.sleep(self.chance.random() * 0.05)
            client.abort()
        return "left early"

    async def ask_twice(self) -> str:
        body, key = self._body(), uuid4().hex
        first, _ = await asyncio.gather(self._whole(body, key), self._whole(body, key))
        return first

    # ------------------------------------------------------------------ how

    def _body(self, **more: Any) -> dict[str, Any]:
        words = " ".join(self.chance.choices(("alpha", "beta", "gamma", "delta"), k=self.chance.randint(1, 30)))
        return {
            "model": MODEL,
            "messages": [{"role": "user", "content": words}],
            "max_tokens": self.chance.randint(1, self.tokens_max),
            "ignore_eos": True,
            **more,
        }

    async def _whole(self, body: Any, idempotency_key: str | None = None) -> str:
        headers = {"idempotency-key": idempotency_key} if idempotency_key else {}
        async with asyncio.timeout(_ANSWER_TIMEOUT_S), connect(self.port) as client:
            await client.send(request_bytes(body, key=self.key, headers=headers))
            try:
                async with asyncio.timeout(_QUIET_S * 10):
                    answer = await client.read_answer()
            except TimeoutError:
                return "left a hanging one"
        usage = _read_usage(answer.document.get("usage")) if answer.status == 200 else None
        self._keep(Answered(answer.headers["x-request-id"], answer.status, usage, is_whole=True))
        return str(answer.status)

    async def _stream(self, *, leave_after: int | None) -> str:
        options = {"stream_options": {"include_usage": True}} if self.chance.random() < 0.5 else {}
        async with asyncio.timeout(_ANSWER_TIMEOUT_S), connect(self.port) as client:
            await client.send(request_bytes(self._body(stream=True, **options), key=self.key))
            status, headers, _ = await client.read_head()
            if status != 200:
                return str(status)
            answered = Answered(headers["x-request-id"], status)
            self._keep(answered)
            return await self._follow(client, answered, leave_after)

    async def _follow(self, client: RawClient, answered: Answered, leave_after: int | None) -> str:
        chunks = client.read_chunks()
        buffered = b""
        while leave_after is None or answered.events < leave_after:
            try:
                async with asyncio.timeout(_QUIET_S if answered.events else None):
                    buffered += await anext(chunks)
            except TimeoutError:
                return "left where it stood still"
            except StopAsyncIteration:
                break
            *events, buffered = buffered.split(b"\n\n")
            for event in events:
                self._take(answered, event.removeprefix(b"data: "))
        if leave_after is not None and not answered.is_whole:
            return "left a stream"
        return "streamed" if answered.is_whole else "cut off"

    def _take(self, answered: Answered, data: bytes) -> None:
        if data == b"[DONE]":
            answered.is_whole = True
            return
        document = json.loads(data)
        choices = document.get("choices") or []
        answered.events += any(choice["delta"].get("content") for choice in choices)
        answered.usage = _read_usage(document.get("usage")) or answered.usage

    def _keep(self, answered: Answered) -> None:
        self.answered[answered.request_id] = answered


def _read_usage(usage: dict[str, Any] | None) -> tuple[int, int, int] | None:
    if not usage:
        return None
    details = usage.get("prompt_tokens_details") or {}
    return usage["prompt_tokens"], details.get("cached_tokens") or 0, usage["completion_tokens"]

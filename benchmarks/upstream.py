"""An instant OpenAI-shaped backend, cheap enough not to be what is measured.

    python benchmarks/upstream.py PORT[,PORT...] [EVENTS=64] [INTERVAL_MS=0]

Each port is a backend of its own to whoever asks. An unstreamed request gets one JSON answer with usage; a stream gets EVENTS
content events, a usage event and [DONE]. A GET gets the list of models, whatever it asks for: health checks are content with that.
"""

import asyncio
import json
import sys
from contextlib import AsyncExitStack

import uvloop

_IDENTITY = {"id": "chatcmpl-benchmark", "created": 1700000000, "model": "m"}
_USAGE = {"prompt_tokens": 250, "completion_tokens": 64, "total_tokens": 314}
_HEAD_END = b"\r\n\r\n"
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)


def build_answer() -> bytes:
    message = {"role": "assistant", "content": "The oldest towns lie along three rivers. " * 6}
    body = json.dumps(
        {
            **_IDENTITY,
            "object": "chat.completion",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": _USAGE,
        }
    ).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def build_models() -> bytes:
    model = {"id": _IDENTITY["model"], "object": "model", "created": _IDENTITY["created"], "owned_by": "benchmark"}
    body = json.dumps({"object": "list", "data": [model]}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def build_frame(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def build_events(count: int) -> list[bytes]:
    def event(choices: list[object], **more: object) -> bytes:
        document = {**_IDENTITY, "object": "chat.completion.chunk", "choices": choices, **more}
        return build_frame(b"data: " + json.dumps(document).encode() + b"\n\n")

    events = [
        event([{"index": 0, "delta": {"content": f"word{i} "}, "finish_reason": None if i < count - 1 else "stop"}])
        for i in range(count)
    ]
    end = build_frame(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    return [*events, event([], usage=_USAGE), end]


_MODELS = build_models()


class Connection(asyncio.Protocol):
    """One connection of the server that is measured."""

    def __init__(self, answer: bytes, events: list[bytes], interval_s: float) -> None:
        self._answer = answer
        self._events = events
        self._interval_s = interval_s
        self._received = b""
        self._position = 0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (request := self._take_request()) is not None:
            if not request:
                self._transport.write(_MODELS)
            elif b'"stream":true' in request or b'"stream": true' in request:
                self._position = 0
                self._transport.write(_STREAM_HEAD)
                self._send_next()
            else:
                self._transport.write(self._answer)

    def _take_request(self) -> bytes | None:
        head_end = self._received.find(_HEAD_END)
        if head_end < 0:
            return None
        head = self._received[:head_end].lower()
        at = head.find(b"content-length:") + len(b"content-length:")
        length = 0 if head.startswith(b"get ") else int(head[at:].split(b"\r\n", 1)[0])
        end = head_end + len(_HEAD_END) + length
        if len(self._received) < end:
            return None
        request, self._received = self._received[head_end:end], self._received[end:]
        return request

    def _send_next(self) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(self._events[self._position])
        self._position += 1
        if self._position == len(self._events):
            return
        loop = asyncio.get_running_loop()
        if self._interval_s:
            loop.call_later(self._interval_s, self._send_next)
        else:
            loop.call_soon(self._send_next)


async def serve(ports: list[int], events: int, interval_s: float) -> None:
    answer, stream = build_answer(), build_events(events)
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as running:
        for port in ports:
            server = await loop.create_server(
                lambda: Connection(answer, stream, interval_s), "127.0.0.1", port, backlog=4096
            )
            await running.enter_async_context(server)
        await loop.create_future()


if __name__ == "__main__":
    numbers = [float(text) for text in sys.argv[2:]] + [64.0, 0.0][len(sys.argv) - 2 :]
    uvloop.run(serve([int(port) for port in sys.argv[1].split(",")], int(numbers[0]), numbers[1] / 1000))

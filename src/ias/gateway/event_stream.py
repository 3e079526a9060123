"""One backend's event stream on its way to a client, without I/O: bytes in, bytes out.

Most chunk frames are whole events that need no change: they are recognised by a few searches and forwarded as they came,
framing included. All else (split frames, comments, usage, other line ends, errors, renamed models) is taken apart into
events and put together again.
"""

import re
from collections import deque
from typing import Final, Literal

from ias.gateway import reasoning
from ias.gateway.chunked import ChunkedDecoder, ChunkedError
from ias.gateway.json_splice import edit_object
from ias.gateway.normalise import normalise_event_error
from ias.gateway.read_usage import read_chunk, read_usage, to_counts
from ias.gateway.response_events import LAST_EVENTS, error_event, find_kind, rename_model
from ias.gateway.sse import Event, EventScanner, EventTooLargeError, format_event
from ias.gateway.token_counts import TokenCounts

Framing = Literal["chunked", "length", "close"]

LAST_CHUNK: Final = b"0\r\n\r\n"
_DONE: Final = b"data: [DONE]\n\n"
_COUNT: Final = rb'"[a-z_]+":(?:[0-9]{1,15}|null)'
_MEMBER: Final = rb'(?:%b|"[a-z_]+":\{(?:%b(?:,%b)*)?\})' % (_COUNT, _COUNT, _COUNT)
# How vLLM ends each content event when asked for continuous usage. A quote inside a string is escaped, and the last brace
# closes the event, so what matches is the event's own last member.
_USAGE_AT_END: Final = re.compile(rb',"usage":(null|\{"prompt_tokens":[0-9]{1,15}(?:,%b)*\})\}' % _MEMBER)
_FINISHED: Final = re.compile(rb'"finish_reason"\s*:\s*"')
_LAST_EVENTS_KEPT: Final = 4
_FIRST_EVENT_BYTES_KEPT: Final = 1024
_SIZE_LINES: Final = tuple(b"%x" % size for size in range(1024))
"""Of most chunks: looked up in half the time that formatting takes."""
_USUAL_END: Final = b"}\n\n\r\n"
_STARTS: Final = {len(size) + 4 + int(size, 16): size + b'\r\ndata: {"id":' for size in _SIZE_LINES[16:]}
"""How a chunk begins that is one usual event, by its length with its framing; an error would begin with {"error"."""


class BrokenStreamError(ValueError):
    """What the backend sends is no event stream."""


class Rewrite:
    """What must change in a stream: decided once per request."""

    __slots__ = (
        "client_wants_continuous",
        "client_wants_usage",
        "names_reasoning_twice",
        "public_model",
        "upstream_model",
    )

    def __init__(
        self,
        *,
        client_wants_usage: bool,
        client_wants_continuous: bool,
        upstream_model: str,
        public_model: str,
        names_reasoning_twice: bool = False,
    ) -> None:
        self.client_wants_usage = client_wants_usage
        self.client_wants_continuous = client_wants_continuous
        self.upstream_model = upstream_model
        self.public_model = public_model
        self.names_reasoning_twice = names_reasoning_twice

    @property
    def renames(self) -> bool:
        """Whether the client knows the model by another name than the backend."""
        return self.upstream_model != self.public_model


class EventStream:
    """The state of one relayed stream.

    `events` counts events with choices or deltas; `done` says that the client
    has been sent its end; `body_ended` that the backend's body is complete and its connection free.
    """

    def __init__(
        self,
        rewrite: Rewrite,
        *,
        framing: Framing,
        chunk_output: bool,
        named_events: bool,
        event_bytes_max: int,
        length: int = 0,
    ) -> None:
        self._usage: TokenCounts | None = None
        self._unread_usage = b""
        self.events = 0
        self.first_event = b""
        """The start of the first event, which may have nothing to say but whose turn it is."""
        self.last_events: deque[bytes] = deque(maxlen=_LAST_EVENTS_KEPT)
        """The events last seen, or the blocks they came in."""
        self.done = False
        self.failed = False
        self.body_ended = False
        self._rewrite = rewrite
        self._framing = framing
        self._chunk_output = chunk_output
        self._named_events = named_events
        self._decoder = ChunkedDecoder()
        self._scanner = EventScanner(event_bytes_max)
        self._length_left = length
        self._is_between_events = True
        """Whether nothing is pending: the next byte begins a chunk and an event, and the client waits for it."""
        self._verbatim = framing == "chunked" and chunk_output and not named_events and not rewrite.renames
        self._passes_most = self._verbatim and not rewrite.names_reasoning_twice
        self._mirrors = rewrite.names_reasoning_twice and not named_events
        self._renamed = (
            b'"model":"%b"' % rewrite.upstream_model.encode(),
            b'"model":"%b"' % rewrite.public_model.encode(),
        )

    @property
    def usage(self) -> TokenCounts | None:
        """The engine's last word on tokens."""
        if self._unread_usage:
            self._usage = read_usage(self._unread_usage) or self._usage
            self._unread_usage = b""
        return self._usage

    def passes(self, data: bytes) -> bool:
        """Whether these are chunks with one event each that the client may see exactly as they came.

        Most are, and this is the quickest way to tell. False says nothing about the data but that `feed` has to look at it.
        """
        if not self._passes_most or not self._is_between_events or not self.first_event:
            return False
        if not data.endswith(_USUAL_END) or data.find(b'"usage"') >= 0:
            return False
        length = len(data)
        start = _STARTS.get(length)
        if start is not None and data.startswith(start):
            if data.find(b"\n", 5) != length - 4 or data.find(b"\r", 5) != length - 2:
                return False
            self.events += 1
        else:
            chunks = data[: -len(_USUAL_END)].split(_USUAL_END)
            for chunk in chunks:
                start = _STARTS.get(len(chunk) + len(_USUAL_END))
                if (
                    start is None
                    or not chunk.startswith(start)
                    or chunk.find(b"\n", 5) >= 0
                    or chunk.find(b"\r", 5) >= 0
                ):
                    return False
            self.events += len(chunks)
        self.last_events.append(data)
        return True

    def feed(self, data: bytes) -> bytes:
        """What to send to the client for what has arrived, framed.

        Raises:
            BrokenStreamError: neither framing nor events can be made out.
        """
        if not self._verbatim or not self._is_between_events:
            return self._feed_thoroughly(data)
        plain = self._plain_length(data)
        if plain == len(data):
            return data
        return data[:plain] + self._feed_thoroughly(data[plain:])

    def finish(self) -> bytes:
        """What remains to be sent when the backend's body has ended properly.

        A stream whose choices had finished only lacks its end mark. One that stopped before was cut, and says so.
        """
        if self.done:
            return b""
        if self.failed or (not self._named_events and any(_FINISHED.search(event) for event in self.last_events)):
            return self._end()
        return b""

    def end_with_error(self, error: bytes) -> bytes:
        """The error event for a stream that cannot go on, and its end. `error` is the JSON of an OpenAI error."""
        if self.done:
            return b""
        self.failed = True
        event = error_event(error, self._last_event) if self._named_events else Event(None, error)
        return self._frame(format_event(event)) + self._end()

    def end_with_events(self, events: list[bytes]) -> bytes:
        """Some last events of our own, as their JSON, and the stream's end."""
        if self.done:
            return b""
        return b"".join(self._frame(format_event(Event(None, event))) for event in events) + self._end()

    # -------------------------------------------------------------- the quick way

    def _plain_length(self, data: bytes) -> int:
        """How many leading bytes are chunks of whole events that the client may see exactly as they are.

        What a chunk's first line must say is worked out, not read: other spellings of its size are left to the thorough way.
        """
        has_marks = self._is_marked(data)
        parts = data.split(b"\r\n")  # size, chunk, size, chunk, ..., and what follows the last line end
        length = 0
        for i in range(1, len(parts) - 1, 2):
            chunk = parts[i]
            size = _size_line(len(chunk))
            if parts[i - 1] != size or (has_marks and self._is_marked(chunk)):
                break
            events = _count_plain_events(chunk)
            if not events:
                break
            if not self.first_event:
                self.first_event = chunk[: min(chunk.index(b"\n"), _FIRST_EVENT_BYTES_KEPT)]
            self.events += events
            length += len(size) + len(chunk) + 4
        if length:
            self.last_events.append(data[:length])
        return length

    def _is_marked(self, chunk: bytes) -> bool:
        return chunk.find(b'"usage"') >= 0 or (self._mirrors and chunk.find(reasoning.MARK) >= 0)

    # -------------------------------------------------------------- the thorough way

    def _feed_thoroughly(self, data: bytes) -> bytes:
        try:
            payload = self._unframe(data)
            events = self._scanner.feed(payload)
        except (ChunkedError, EventTooLargeError) as error:
            raise BrokenStreamError(str(error)) from error
        output = self._emit(events)
        self._is_between_events = not self.done and self._decoder.at_boundary and self._scanner.is_empty
        return output

    def _unframe(self, data: bytes) -> bytes:
        if self._framing == "chunked":
            payload = self._decoder.feed(data)
            self.body_ended = self._decoder.ended
            return payload
        if self._framing == "length":
            if len(data) > self._length_left:
                raise ChunkedError("more bytes than announced")
            self._length_left -= len(data)
            self.body_ended = self._length_left == 0
        return data

    def _emit(self, events: list[Event]) -> bytes:
        output = []
        for event in events:
            if self.done:
                break
            if event.data == b"[DONE]":
                output.append(self._end())
                break
            if self._named_events:
                output += self._inspect_named(event)
                continue
            shown = self._inspect(event)
            if shown is not None:
                output.append(self._frame(format_event(shown)))
        return b"".join(output)

    def _inspect_named(self, event: Event) -> list[bytes]:
        """`_inspect` for the events of `/v1/responses`; the bytes to send. What comes last ends the stream."""
        kind, (name, data) = find_kind(event), event
        if kind == b"error":
            event = error_event(data, self._last_event)
        elif self._rewrite.renames:
            event = Event(name, rename_model(data, self._rewrite.public_model))
        if not self.first_event:
            self.first_event = data[:_FIRST_EVENT_BYTES_KEPT]
        self.last_events.append(data)
        self.events += kind.endswith(b".delta")
        self.failed = self.failed or kind in (b"error", b"response.failed")
        if b'"usage"' in data:
            chunk = read_chunk(data)
            reported = None if chunk is None or chunk.response is None else chunk.response.usage
            self._usage = (None if reported is None else to_counts(reported)) or self._usage
        shown = self._frame(format_event(event))
        return [shown, self._end()] if kind in LAST_EVENTS else [shown]

    @property
    def _last_event(self) -> bytes:
        return self.last_events[-1] if self.last_events else b""

    def _inspect(self, event: Event) -> Event | None:
        """Note what an event says of usage and of the end; the event as the client may see it."""
        name, data = event
        if not self.first_event:
            self.first_event = data[:_FIRST_EVENT_BYTES_KEPT]
        self.last_events.append(data)
        if data.startswith((b'{"error"', b'{ "error"')) or name == b"error":
            self.failed = True
            return Event(None, normalise_event_error(data))
        if self._rewrite.renames:
            data = self._rename(data)
        if self._mirrors and data.find(reasoning.MARK) >= 0:
            data = bytes(reasoning.name_twice(data))
        if data.find(b'"usage"') < 0:
            self.events += 1
            return Event(name, data)
        return self._inspect_usage(name, data)

    def _rename(self, data: bytes) -> bytes:
        old, new = self._renamed
        if data.find(old) >= 0:
            return data.replace(old, new, 1)
        if b'"model"' in data and b'"choices"' in data:
            return edit_object(data, put={"model": new[len(b'"model":') :]})
        return data

    def _inspect_usage(self, name: bytes | None, data: bytes) -> Event | None:
        if name is None and data.find(b'"choices":[{') >= 0:
            position = data.find(b',"usage":')
            found = _USAGE_AT_END.fullmatch(data, position) if position > 0 else None
            if found is not None:
                self.events += 1
                return Event(None, self._cut_usage(data, position, found[1]))
        chunk = read_chunk(data)
        if chunk is None:
            return Event(name, data)
        if chunk.usage is not None:
            self._usage = to_counts(chunk.usage) or self.usage
            self._unread_usage = b""
        if chunk.choices == [] and chunk.usage is not None:
            return Event(name, data) if self._rewrite.client_wants_usage else None
        self.events += 1
        return Event(name, self._hide_usage(data, has_usage=chunk.usage is not None))

    def _cut_usage(self, data: bytes, position: int, usage: bytes) -> bytes:
        """`_hide_usage` for usage in its usual place, by far the quickest way; it is read when somebody asks for it."""
        if usage != b"null":
            self._unread_usage = usage
        if not self._rewrite.client_wants_usage:
            return data[:position] + b"}"
        if usage != b"null" and not self._rewrite.client_wants_continuous:
            return data[:position] + b',"usage":null}'
        return data

    def _hide_usage(self, data: bytes, *, has_usage: bool) -> bytes:
        """A content event's `usage` as the client expects it: absent unless asked for, null until the end."""
        if not self._rewrite.client_wants_usage:
            return edit_object(data, put={}, remove=frozenset({"usage"}))
        if has_usage and not self._rewrite.client_wants_continuous:
            return edit_object(data, put={"usage": b"null"})
        return data

    def _frame(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunk_output else data

    def _end(self) -> bytes:
        self.done = True
        self._is_between_events = False
        mark = b"" if self._named_events else self._frame(_DONE)
        return mark + LAST_CHUNK if self._chunk_output else mark


def _size_line(size: int) -> bytes:
    return _SIZE_LINES[size] if size < len(_SIZE_LINES) else b"%x" % size


def _count_plain_events(chunk: bytes) -> int:
    """How many events a chunk consists of, each of one line of JSON and no error; 0 where that cannot be told at a glance.

    `find` is a third of what `in` costs, which takes its left side for a number first, and raises and catches a TypeError.
    """
    if not chunk.endswith(b"}\n\n") or chunk.find(b"\r") >= 0:
        return 0
    if chunk.find(b"\n") == len(chunk) - 2:  # an error would begin with {"error"
        is_plain = chunk.startswith(b'data: {"id":') or (
            chunk.startswith(b"data: {") and not chunk.startswith(b'data: {"error"')
        )
        return 1 if is_plain else 0
    following = chunk.count(b"\n\ndata: {")
    if (
        not chunk.startswith(b"data: {")
        or chunk.count(b"\n") != 2 + 2 * following
        or chunk.find(b'data: {"error"') >= 0
    ):
        return 0
    return 1 + following

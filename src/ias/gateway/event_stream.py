"""One backend's event stream on its way to a client, without I/O: bytes in, bytes out.

Most chunk frames are whole events that need no change: they are recognised by a few searches and forwarded as they came,
framing included. All else (split frames, comments, usage, other line ends, errors, renamed models) is taken apart into
events and put together again.
"""

import re
from collections import deque
from typing import Literal

from ias.gateway import reasoning
from ias.gateway.chunked import ChunkedDecoder, ChunkedError
from ias.gateway.json_splice import edit_object
from ias.gateway.normalise import normalise_event_error
from ias.gateway.response_events import LAST_EVENTS, error_event, find_kind, rename_model
from ias.gateway.sse import Event, EventScanner, EventTooLargeError, format_event
from ias.gateway.usage import TokenCounts, read_chunk, read_usage, to_counts

Framing = Literal["chunked", "length", "close"]

LAST_CHUNK = b"0\r\n\r\n"
_DONE = b"data: [DONE]\n\n"
_COUNT = rb'"[a-z_]+":(?:[0-9]{1,15}|null)'
_MEMBER = rb'(?:%b|"[a-z_]+":\{(?:%b(?:,%b)*)?\})' % (_COUNT, _COUNT, _COUNT)
# How vLLM ends each content event when asked for continuous usage. A quote inside a string is escaped, and the last brace
# closes the event, so what matches is the event's own last member.
_USAGE_AT_END = re.compile(rb',"usage":(null|\{"prompt_tokens":[0-9]{1,15}(?:,%b)*\})\}' % _MEMBER)
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')
_LAST_EVENTS_KEPT = 4
_FIRST_EVENT_BYTES_KEPT = 1024
_SIZE_LINE_LENGTH_MAX = 9
_HEX_DIGITS = b"0123456789abcdefABCDEF"


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
        """Whether this is one chunk with one event that the client may see exactly as it came.

        Most are, and this is the quickest way to tell: the size that the first line must say is worked out rather than
        read. False says nothing about the data but that `feed` has to look at it.
        """
        length = len(data)
        if 22 <= length < 262:
            size = length - 6  # two digits, two line ends
        elif 262 < length < 4103:
            size = length - 7
        else:
            return False
        if (
            self._passes_most
            and self._is_between_events
            and self.first_event
            and data.startswith(b'%x\r\ndata: {"id":' % size)  # an error would begin with {"error"
            and data.endswith(b"}\n\n\r\n")
            and data.count(b"\n") == 4
            and data.count(b"\r") == 2
            and b'"usage"' not in data
        ):
            self.events += 1
            self.last_events.append(data)
            return True
        return False

    def feed(self, data: bytes) -> bytes:
        """What to send to the client for what has arrived, framed.

        Raises:
            BrokenStreamError: neither framing nor events can be made out.
        """
        if not self._verbatim:
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
        """How many leading bytes are chunks of whole events that the client may see exactly as they are."""
        if not self._is_between_events:
            return 0
        position = 0
        total = len(data)
        while position < total:
            size_end = data.find(b"\r\n", position, position + _SIZE_LINE_LENGTH_MAX)
            if size_end <= position:
                break
            digits = data[position:size_end]
            if digits.strip(_HEX_DIGITS):
                break
            start = size_end + 2
            end = start + int(digits, 16)
            if not self._is_plain_chunk(data, start, end):
                break
            position = end + 2
        return position

    def _is_plain_chunk(self, data: bytes, start: int, end: int) -> bool:
        if not data.startswith(b"data: {", start) or not data.startswith(b"}\n\n\r\n", end - 3):
            return False
        lines = data.count(b"\n", start, end)
        if lines == 2:  # one event: only its beginning can be an error's
            is_error = data.startswith(b'{"error"', start + 6)
        else:
            is_error = data.find(b'data: {"error"', start, end) >= 0
            if lines != 2 + 2 * data.count(b"\n\ndata: {", start, end):
                return False
        if (
            is_error
            or data.find(b'"usage"', start, end) >= 0
            or data.find(b"\r", start, end) >= 0
            or (self._mirrors and data.find(reasoning.MARK, start, end) >= 0)
        ):
            return False
        if not self.first_event:
            self.first_event = data[start : min(data.index(b"\n", start), start + _FIRST_EVENT_BYTES_KEPT)]
        self.events += lines // 2
        self.last_events.append(data)
        return True

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
        if self._mirrors and reasoning.MARK in data:
            data = bytes(reasoning.name_twice(data))
        if b'"usage"' not in data:
            self.events += 1
            return Event(name, data)
        return self._inspect_usage(name, data)

    def _rename(self, data: bytes) -> bytes:
        old, new = self._renamed
        if old in data:
            return data.replace(old, new, 1)
        if b'"model"' in data and b'"choices"' in data:
            return edit_object(data, put={"model": new[len(b'"model":') :]})
        return data

    def _inspect_usage(self, name: bytes | None, data: bytes) -> Event | None:
        if name is None and b'"choices":[{' in data:
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

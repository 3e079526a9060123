"""The events of a `/v1/responses` stream: named, without [DONE], the last one with the whole answer and its usage."""

import re
from typing import Any

import msgspec

from ias.gateway.json_splice import edit_object, list_members
from ias.gateway.normalise import read_openai_error
from ias.gateway.sse import Event

LAST_EVENTS = frozenset({b"response.completed", b"response.incomplete", b"response.failed"})
"""What ends a stream properly; an `error` event ends it as well."""
_SEQUENCE_NUMBER = re.compile(rb'"sequence_number"\s*:\s*([0-9]{1,15})')


class _Typed(msgspec.Struct):
    type: str = ""


_decoder = msgspec.json.Decoder(_Typed)


def find_kind(event: Event) -> bytes:
    """What an event is: its name, or where it has none the `type` in its data; empty where that cannot be read."""
    if event.name is not None:
        return event.name
    if event.data.startswith(b'{"error"'):
        return b"error"
    try:
        return _decoder.decode(event.data).type.encode()
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return b""


def rename_model(data: bytes, public_model: str) -> bytes:
    """The event with the client's name of the model in the answer that it carries, if it carries one."""
    if b'"model"' not in data:
        return data
    for member in list_members(data):
        answer = data[member.value_start : member.end]
        if member.name == "response" and any(inner.name == "model" for inner in list_members(answer)):
            renamed = edit_object(answer, put={"model": msgspec.json.encode(public_model)})
            return b"".join((data[: member.value_start], renamed, data[member.end :]))
    return data


def error_event(data: bytes, last: bytes) -> Event:
    """An error, in whatever shape, as the event after `last`.

    OpenAI's event has the members `type`, `code`, `message`, `param` and `sequence_number` side by side. Its SDKs hand that
    on as an event like any other and raise only where there is an `error` object, so it has both.
    """
    error = read_openai_error(data)
    numbers = _SEQUENCE_NUMBER.findall(data) or [b"%d" % (int(n) + 1) for n in _SEQUENCE_NUMBER.findall(last)[-1:]]
    document: dict[str, Any] = {
        "type": "error",
        "code": error.code,
        "message": error.message,
        "param": error.param,
        "sequence_number": int(numbers[-1]) if numbers else 0,
        "error": error,
    }
    return Event(b"error", msgspec.json.encode(document))

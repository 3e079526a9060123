"""What a model thinks aloud, under both of its names: vLLM writes `reasoning`, many clients read `reasoning_content`."""

import re
from collections.abc import Callable

import msgspec

from ias.gateway.json_splice import Buffer, edit_object, list_members

MARK = b'"reasoning'
"""What holds neither name does not hold this either."""

_NAMES = ("reasoning", "reasoning_content")
_STRING = rb'("(?:[^"\\]++|\\.)*+")'
# The form of nearly every such event. A quote inside a string is escaped, so this cannot match text of the model's.
_LONE_DELTA = re.compile(rb'("delta":\{(?:"role":"assistant",)?)"reasoning":' + _STRING + rb"\}")
_decode_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode


def name_twice(text: Buffer) -> Buffer:
    """An event or a whole answer in which each choice's `delta` or `message` has both names, where it has one of them.

    All else is kept byte for byte. What does not have the form of an answer is left alone.
    """
    if b'"reasoning_content"' not in text and text.count(MARK) == 1:
        edited, found = _LONE_DELTA.subn(rb'\1"reasoning":\2,"reasoning_content":\2}', text)
        if found:
            return edited
    try:
        return _edit_member(text, "choices", _edit_choices)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return text


def _edit_choices(choices: bytes) -> bytes:
    before = [bytes(choice) for choice in _decode_elements(choices)]
    after = [_edit_choice(choice) for choice in before]
    return choices if after == before else b"[" + b",".join(after) + b"]"


def _edit_choice(choice: bytes) -> bytes:
    for name in ("delta", "message"):
        choice = bytes(_edit_member(choice, name, _add_other_name))
    return choice


def _add_other_name(message: bytes) -> bytes:
    if not message.startswith(b"{"):
        return message
    known = {member.name: message[member.value_start : member.end] for member in list_members(message)}
    missing = [name for name in _NAMES if name not in known]
    if len(missing) != 1:
        return message
    (value,) = (known[name] for name in _NAMES if name in known)
    return edit_object(message, put={missing[0]: value})


def _edit_member(text: Buffer, name: str, edit: Callable[[bytes], bytes]) -> Buffer:
    for member in list_members(text):
        if member.name == name:
            value = bytes(text[member.value_start : member.end])
            edited = edit(value)
            return text if edited == value else edit_object(text, put={name: edited})
    return text

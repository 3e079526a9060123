"""Edits of one JSON object's top-level members on its bytes, so that everything else stays exactly as it was sent."""

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import msgspec

Buffer = bytes | bytearray

_SPACE: Final = rb"[ \t\r\n]*+"
_STRING: Final = rb'"(?:[^"\\]++|\\.)*+"'
_OPENING: Final = re.compile(_SPACE + rb"\{")
_KEY: Final = re.compile(_SPACE + rb"(" + _STRING + rb")" + _SPACE + rb":" + _SPACE, re.DOTALL)
_FLAT_VALUE: Final = re.compile(_STRING + rb'|[^"{}\[\], \t\r\n]++', re.DOTALL)
_UP_TO_BRACKET: Final = re.compile(rb'(?:[^"{}\[\]]++|' + _STRING + rb")*+[{}\[\]]", re.DOTALL)
_COMMA: Final = re.compile(_SPACE + rb",")
_decode_text: Final = msgspec.json.Decoder(str).decode


class Member(NamedTuple):
    """Where a top-level member stands: its key's first byte, its value's first byte, one past its value."""

    name: str
    start: int
    value_start: int
    end: int


def list_members(text: Buffer) -> Iterator[Member]:
    """The top-level members of a JSON object, in order, duplicates included.

    Of what is no valid JSON, those before the first fault; of what is no object, none.
    """
    before = _OPENING.match(text)
    while before and (key := _KEY.match(text, before.end())) and (end := _end_of_value(text, key.end())):
        try:
            name = _decode_text(key[1])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        yield Member(name, key.start(1), key.end(), end)
        before = _COMMA.match(text, end)


def _end_of_value(text: Buffer, start: int) -> int:
    """One past the value; 0 when it has no end."""
    flat = _FLAT_VALUE.match(text, start)
    if flat:
        return flat.end()
    depth = 0
    while bracket := _UP_TO_BRACKET.match(text, start):
        start = bracket.end()
        depth += 1 if text[start - 1] in b"{[" else -1
        if depth <= 0:
            return start
    return 0


def edit_object(text: Buffer, *, put: Mapping[str, bytes], remove: frozenset[str] = frozenset()) -> bytes:
    """The object with members set to new JSON values and others removed; a member put twice over is put once.

    Members that were not there are put first. All else is kept byte for byte, white space between members included; what is
    removed takes the separator before it along.
    """
    members = list(list_members(text))
    missing = dict(put)
    kept: list[bytes] = []
    start = end = members[0].start if members else text.find(b"{") + 1
    for member in members:
        before, end = bytes(text[end : member.start]), member.end
        if member.name in remove or (member.name in put and member.name not in missing):
            continue
        value = missing.pop(member.name, None)
        kept += (
            before if kept else b"",
            bytes(text[member.start : member.end if value is None else member.value_start]),
            value or b"",
        )
    added = b",".join([b'"%b":%b' % (name.encode(), value) for name, value in missing.items()])
    comma = b"," if added and kept else b""
    return b"".join((text[:start], added, comma, *kept, text[end:]))


def prepend_members(text: Buffer, members: bytes) -> bytes:
    """The object with members (`"name":value,` each) put first: no scan, for objects known to have members of their own."""
    opening = text.index(b"{") + 1
    return b"".join((text[:opening], members, text[opening:]))

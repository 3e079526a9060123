"""Edits of one JSON object's top-level members on its bytes, so that everything else stays exactly as it was sent."""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec

Buffer = bytes | bytearray

# Structural characters and whole strings; all between them (numbers, literals, white space) needs no look.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\]:,]', re.DOTALL)
_decode_text = msgspec.json.Decoder(str).decode


class Member(NamedTuple):
    """Where a top-level member stands: its key's first byte, its value's first byte, one past its value."""

    name: str
    start: int
    value_start: int
    end: int


def list_members(text: Buffer) -> Iterator[Member]:
    """The top-level members of a JSON object that is known to be valid, in order, duplicates included."""
    depth = 0
    name: str | None = None
    start = value_start = 0
    for token in _TOKEN.finditer(text):
        first = text[token.start()]
        if first in b"{[":
            depth += 1
        elif first in b"]}":
            depth -= 1
            if depth == 0 and name is not None:
                yield Member(name, start, value_start, _trim(text, token.start()))
                return
        elif depth == 1:
            if first == 0x22 and name is None:
                name, start = _decode_text(token.group()), token.start()
            elif first == 0x3A:
                value_start = _skip_space(text, token.end())
            elif first == 0x2C and name is not None:
                yield Member(name, start, value_start, _trim(text, token.start()))
                name = None


def _trim(text: Buffer, end: int) -> int:
    while text[end - 1] in b" \t\r\n":
        end -= 1
    return end


def _skip_space(text: Buffer, start: int) -> int:
    while text[start] in b" \t\r\n":
        start += 1
    return start


def edit_object(text: Buffer, *, put: Mapping[str, bytes], remove: frozenset[str] = frozenset()) -> bytes:
    """The object with members set to new JSON values and others removed; a member put twice over is put once.

    Members that were not there are put first. The order and spelling of all else is kept.
    """
    members = list(list_members(text))
    kept: list[bytes] = []
    missing = dict(put)
    for member in members:
        if member.name in remove:
            continue
        if member.name in put:
            value = missing.pop(member.name, None)
            if value is not None:
                kept.append(bytes(text[member.start : member.value_start]) + value)
            continue
        kept.append(bytes(text[member.start : member.end]))
    added = [b'"%b":%b' % (name.encode(), value) for name, value in missing.items()]
    head, tail = _frame(text, members)
    return head + b",".join([*added, *kept]) + tail


def _frame(text: Buffer, members: list[Member]) -> tuple[bytes, bytes]:
    if not members:
        return b"{", b"}"
    return bytes(text[: members[0].start]), bytes(text[members[-1].end :])


def prepend_members(text: Buffer, members: bytes) -> bytes:
    """The object with members (`"name":value,` each) put first: no scan, for objects known to have members of their own."""
    opening = text.index(b"{") + 1
    return b"".join((text[:opening], members, text[opening:]))

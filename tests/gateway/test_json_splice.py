"""Edits change what they name and nothing else."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ias.gateway.json_splice import edit_object, list_members, prepend_members

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
objects = st.dictionaries(st.text(max_size=8), values, max_size=6)


@given(objects, st.sampled_from([None, 2]), st.booleans(), st.booleans())
def test_members_are_found_wherever_white_space_stands(
    document: dict[str, Any], indent: int | None, ascii_only: bool, as_bytearray: bool
) -> None:
    text: bytes | bytearray = json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode(
        errors="surrogatepass"
    )
    try:
        text.decode()
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeError:
        return
    if as_bytearray:
        text = bytearray(text)
    found = {member.name: json.loads(text[member.value_start : member.end]) for member in list_members(text)}
    assert found == document


@given(objects, st.sampled_from([None, 2]))
def test_put_and_removed_members_change_and_others_stay(document: dict[str, Any], indent: int | None) -> None:
    try:
        text = json.dumps(document, indent=indent).encode()
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeError:
        return
    names = list(document)
    removed = frozenset(names[:1])
    put = dict.fromkeys([*names[1:2], "added"], b'{"new":1}')
    edited = json.loads(edit_object(text, put=put, remove=removed))
    expected = {name: value for name, value in document.items() if name not in removed}
    expected.update({name: {"new": 1} for name in put})
    assert edited == expected


def test_duplicates_and_escaped_names_are_all_replaced() -> None:
    text = b'{"max_tokens":1, "a":"}{", "max\\u005ftokens": null ,"max_tokens":9}'
    assert edit_object(text, put={"max_tokens": b"5"}) == b'{"max_tokens":5, "a":"}{"}'


def test_members_are_prepended_without_touching_the_rest() -> None:
    assert prepend_members(b' {"a": 1.50 }', b'"b":2,') == b' {"b":2,"a": 1.50 }'


@given(objects, st.sampled_from([None, 1, 2]), st.data())
def test_what_is_not_named_keeps_its_bytes_and_the_space_around_it(
    document: dict[str, Any], indent: int | None, data: Any
) -> None:
    text = json.dumps(document, indent=indent).encode()
    members = list(list_members(text))
    if any("\\u" in json.dumps(name) for name in document):
        return
    removed = frozenset(data.draw(st.sets(st.sampled_from(list(document)))) if document else ())
    edited = edit_object(text, put={}, remove=removed)
    kept = [member for member in members if member.name not in removed]
    assert edited.startswith(text[: members[0].start] if members else text[:1])
    assert edited.endswith(text[members[-1].end :] if members else text[1:])
    position = 0
    for before, member in zip([None, *members], members, strict=False):
        if member not in kept:
            continue
        separated = text[before.end : member.start] if before is not None and member is not kept[0] else b""
        position = edited.index(separated + text[member.start : member.end], position)
    assert json.loads(edited) == {name: value for name, value in document.items() if name not in removed}


def test_white_space_stays_where_it_was() -> None:
    text = b'{\n  "a" : 1 ,\n  "cache_salt": "x",\n\t"b":  [ 1 ]\r\n}\n'
    assert edit_object(text, put={}, remove=frozenset({"cache_salt"})) == b'{\n  "a" : 1,\n\t"b":  [ 1 ]\r\n}\n'
    assert edit_object(text, put={"b": b"2"}) == b'{\n  "a" : 1 ,\n  "cache_salt": "x",\n\t"b":  2\r\n}\n'
    assert edit_object(text, put={"new": b"2"}) == text.replace(b'"a"', b'"new":2,"a"')
    assert edit_object(b" { } ", put={"new": b"2"}) == b' {"new":2 } '
    assert edit_object(b'{ "a": 1 } ', put={"new": b"2"}, remove=frozenset({"a"})) == b'{ "new":2 } '


@given(st.binary(max_size=40) | objects.map(lambda document: json.dumps(document).encode()), st.integers(0, 40))
def test_what_is_no_object_has_no_members_and_never_raises(text: bytes, cut: int) -> None:
    for broken in (text, text[:cut], b"{" + text[cut:]):
        for member in list_members(broken):
            assert broken[member.start : member.start + 1] == b'"'
            assert member.start < member.value_start < member.end <= len(broken)
        edit_object(broken, put={"a": b"1"}, remove=frozenset({"b"}))

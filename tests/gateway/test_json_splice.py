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
    assert edit_object(text, put={"max_tokens": b"5"}) == b'{"max_tokens":5,"a":"}{"}'


def test_members_are_prepended_without_touching_the_rest() -> None:
    assert prepend_members(b' {"a": 1.50 }', b'"b":2,') == b' {"b":2,"a": 1.50 }'

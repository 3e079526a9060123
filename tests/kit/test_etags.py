"""Which versions a change is meant for, and which answers a caller has already."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ias.kit.etags import check_if_match, is_known, make_etag
from ias.kit.problems import PreconditionFailedError


def is_met(header: str | None, version: int) -> bool:
    try:
        check_if_match(header, version)
    except PreconditionFailedError:
        return False
    return True


@given(st.integers(0, 10**15), st.text(max_size=5))
def test_a_tag_matches_its_version_and_no_other(version: int, more: str) -> None:
    tag = make_etag(json.dumps({"version": version, "more": more}).encode())
    assert is_met(tag, version)
    assert not is_met(tag, version + 1)


@pytest.mark.parametrize(
    ("header", "is_met_by_3"),
    [
        (None, True),
        ("*", True),
        (" * ", True),
        ('"3"', True),
        ('"4"', False),
        ('"2", "3"', True),
        ('"2",W/"3"', False),
        ("3", False),
        ('W/"3"', False),
        ('"abc"', False),
        ('"-3"', False),
        ('"3-xyz"', False),
        ('""', False),
        ("", False),
        ('"' + "3" * 400 + '"', False),
    ],
)
def test_if_match_is_read_so(header: str | None, is_met_by_3: bool) -> None:
    assert is_met(header, 3) == is_met_by_3


def test_what_changes_without_a_version_changes_the_tag_but_not_what_it_matches() -> None:
    first, second = (make_etag(json.dumps({"version": 3, "spent": spent}).encode()) for spent in (1, 2))
    assert first != second
    assert is_met(first, 3)
    assert is_met(second, 3)


def test_what_has_no_version_has_a_tag_that_matches_none() -> None:
    tag = make_etag(b'{"name":"x"}')
    assert not any(is_met(tag, version) for version in range(100))


@pytest.mark.parametrize(
    ("header", "known"),
    [(None, False), ("*", True), ('"a"', True), ('W/"a"', True), ('"b", "a"', True), ('"b"', False), ("a", False)],
)
def test_if_none_match_is_compared_weakly(header: str | None, known: bool) -> None:
    assert is_known(header, '"a"') == known


@given(st.text(max_size=50))
def test_any_header_is_read(header: str) -> None:
    is_met(header, 1)
    is_known(header, '"a"')

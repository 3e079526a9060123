"""A head is recognised only where a parser would have read the same from it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ias.gateway.known_head import KnownHead

HEAD = b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nX-More: b\r\n\r\n"


def learn(head: bytes = HEAD, length: int = 12) -> KnownHead:
    known = KnownHead.learn(head, length)
    assert known is not None
    return known


@given(st.integers(0, 99_999_999))
def test_the_same_head_is_known_whatever_the_length_of_its_body(length: int) -> None:
    head = HEAD.replace(b"12", b"%d" % length)
    assert learn().match(head + b"body") == (len(head), length)


@given(st.integers(0, 20_000), st.integers(-3, 3))
def test_a_whole_body_is_found_only_where_it_is_as_long_as_the_head_says(length: int, more: int) -> None:
    body = b"x" * max(0, length + more)
    found = learn().find_body(HEAD.replace(b"12", b"%d" % length) + body)
    assert found is None or (found == body and len(body) == length)


@pytest.mark.parametrize("length", [1, 8, 12, 1300, 20_000])
def test_a_whole_body_is_found(length: int) -> None:
    assert learn().find_body(HEAD.replace(b"12", b"%d" % length) + b"x" * length) == b"x" * length


@given(st.binary(max_size=3), st.integers(0, len(HEAD) - 1))
def test_a_whole_body_is_not_found_behind_another_head(other: bytes, at: int) -> None:
    changed = HEAD[:at] + other + HEAD[at + 1 :]
    if changed != HEAD:
        assert learn().find_body(changed + b"x" * 12) is None


@given(st.binary(max_size=3), st.integers(0, len(HEAD) - 1))
def test_a_head_that_differs_anywhere_else_is_not_known(other: bytes, at: int) -> None:
    start = HEAD.index(b"12")
    changed = HEAD[:at] + other + HEAD[at + 1 :]
    found = learn().match(changed)
    if found is not None:
        assert changed[:start] == HEAD[:start]
        digits, _, suffix = changed[start:].partition(b"\r")
        assert digits.isdigit()
        assert found == (start + len(digits) + 1 + len(HEAD) - start - 3, int(digits))
        assert b"\r" + suffix[: len(HEAD) - start - 3] == HEAD[start + 2 :]


@pytest.mark.parametrize("digits", [b"", b"-1", b"+1", b"1 ", b" 1", b"0x1", b"1\n", "٣".encode(), b"123456789"])
def test_what_is_no_plain_number_is_left_to_the_parser(digits: bytes) -> None:
    assert learn().match(HEAD.replace(b"12", digits)) is None


@given(st.integers(0, len(HEAD) - 1))
def test_a_part_of_a_head_is_not_known(size: int) -> None:
    assert learn().match(HEAD[:size]) is None


@pytest.mark.parametrize(
    ("data", "length"),
    [
        (HEAD[:-2], 12),  # not whole
        (HEAD, 13),  # read as another length
        (HEAD + b"x" * 12 + HEAD, 12),  # two messages
        (HEAD.replace(b"12", b"012"), 12),
        (HEAD.replace(b"X-More", b"Content-Length"), 12),
        (HEAD.replace(b"b\r\n", b"content-length: 9\r\n"), 12),
        (HEAD.replace(b"Content-Length: 12\r\n", b""), 12),
        (HEAD.replace(b"X-More: b", b"X-More: " + b"b" * 5000), 12),
    ],
)
def test_an_unusual_head_is_not_learnt(data: bytes, length: int) -> None:
    assert KnownHead.learn(data, length) is None

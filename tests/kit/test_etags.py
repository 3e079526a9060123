"""Which versions a change is meant for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ias.kit.etags import etag_of, read_if_match


@given(st.integers(0, 10**15))
def test_a_tag_names_its_version_and_no_other(version: int) -> None:
    assert read_if_match(etag_of(version)) == {version}


@pytest.mark.parametrize(
    ("header", "versions"),
    [
        (None, None),
        ("*", None),
        (" * ", None),
        ('"3"', {3}),
        ('"3", "4"', {3, 4}),
        ('"3",W/"4"', {3}),
        ("3", set()),
        ('W/"3"', set()),
        ('"abc"', set()),
        ('"-3"', set()),
        ('""', set()),
        ("", set()),
        ('"' + "9" * 400 + '"', set()),
    ],
)
def test_headers_are_read_so(header: str | None, versions: set[int] | None) -> None:
    assert read_if_match(header) == versions


@given(st.text(max_size=50))
def test_any_header_is_read(header: str) -> None:
    read_if_match(header)

"""`ETag` and `If-Match` (RFC 9110): a change that was decided on an older version is refused, not merged by chance.

A resource's tag is its version. Without `If-Match` a change is made whatever the version.
"""

import re
from typing import Annotated

from fastapi import Header

IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        max_length=500,
        description="`ETag` of the version that the change is meant for; another version is refused with 412.",
    ),
]

_TAG = re.compile(r'(W/)?"([^"]*)"')


def etag_of(version: int) -> str:
    """The tag of a version."""
    return f'"{version}"'


def read_if_match(header: str | None) -> frozenset[int] | None:
    """The versions that a change is meant for; None for any. Tags that are none of ours match nothing, weak ones neither."""
    if header is None or header.strip() == "*":
        return None
    return frozenset(
        int(text)
        for weak, text in _TAG.findall(header)
        if not weak and text.isascii() and text.isdecimal() and len(text) < 19
    )

"""Cursors: signed positions in a list, so that a page can be continued but not invented.

A cursor holds the last id of the page before (lists are ordered by UUIDv7, newest first) and a fingerprint of the filters it
was made for; using it with other filters, or changing a byte, is a clear 400.
"""

import base64
import hashlib
import hmac
from typing import Annotated, Generic, TypeVar
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel

from ias.kit.problems import BadRequestError

PAGE_SIZE_MAX = 200

Limit = Annotated[int, Query(ge=1, le=PAGE_SIZE_MAX, description="Rows a page at most.")]
CursorText = Annotated[
    str | None, Query(max_length=400, description="`next_cursor` of the page before; absent starts at the newest.")
]

Item = TypeVar("Item")


class Page(BaseModel, Generic[Item]):
    """One page of a list, newest first. `next_cursor` is null on the last one."""

    data: list[Item]
    next_cursor: str | None


class Cursors:
    """Makes and reads cursors with a key of this platform."""

    def __init__(self, secret_key: bytes) -> None:
        self._key = hashlib.sha256(b"ias cursors\0" + secret_key).digest()

    def encode(self, last_id: UUID, filters: str = "") -> str:
        """The cursor that continues after `last_id`. `filters` is any text that names the list and its filters."""
        return base64.urlsafe_b64encode(last_id.bytes + self._signature(last_id, filters)).decode().rstrip("=")

    def decode(self, cursor: str | None, filters: str = "") -> UUID | None:
        """The id to continue after; None for the first page.

        Raises:
            BadRequestError: not a cursor of this list with these filters.
        """
        if cursor is None:
            return None
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except ValueError:
            raw = b""
        if len(raw) == 32:
            last_id = UUID(bytes=raw[:16])
            if hmac.compare_digest(raw[16:], self._signature(last_id, filters)):
                return last_id
        raise BadRequestError("The cursor is not one that this list gave out.", code="invalid_cursor")

    def page(self, rows: list[Item], limit: int, filters: str = "", *, id_of: str = "id") -> Page[Item]:
        """A page of the first `limit` of `rows`, of which one more than `limit` was asked for."""
        shown = rows[:limit]
        more = len(rows) > limit
        last_id = getattr(shown[-1], id_of) if more else None
        return Page(data=shown, next_cursor=self.encode(UUID(str(last_id)), filters) if last_id else None)

    def _signature(self, last_id: UUID, filters: str) -> bytes:
        return hmac.new(self._key, last_id.bytes + filters.encode(), hashlib.sha256).digest()[:16]

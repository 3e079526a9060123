"""Pages of what an org has: one way to ask for them and to answer."""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Annotated, Protocol, TypeVar
from uuid import UUID

from fastapi import Depends, Query, Request

from ias.billing.api.parts import CursorsPart
from ias.kit.access import OrgScope
from ias.kit.authorization import Access
from ias.kit.cursors import CursorText, Limit, Page

Item = TypeVar("Item")
Row = TypeVar("Row")


class ListRows(Protocol[Row]):
    """A part's `list`: an org's rows below an id, newest first."""

    def __call__(self, scope: OrgScope, /, *, before: UUID | None, limit: int) -> Awaitable[list[Row]]:
        """Read them."""


@dataclass(frozen=True, slots=True)
class _OrgPage:
    """The page of an org's list that is asked for. A cursor is of this list, by its path, and of this org."""

    request: Request
    cursors: CursorsPart
    org_id: Annotated[UUID, Query()]
    limit: Limit = 50
    cursor: CursorText = None

    async def read(self, access: Access, list_rows: ListRows[Row]) -> list[Row]:
        """The page's rows, and one more if there is one; a 404 for an org that the caller may not look at."""
        scope = access.in_org(str(self.org_id))
        return await list_rows(scope, before=self.cursors.decode(self.cursor, self._filters), limit=self.limit + 1)

    def answer(self, items: list[Item]) -> Page[Item]:
        """The page, of all that was read."""
        return self.cursors.page(items, self.limit, self._filters)

    @property
    def _filters(self) -> str:
        return f"{self.request.url.path}\0{self.org_id}"


OrgPage = Annotated[_OrgPage, Depends()]

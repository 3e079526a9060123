"""A page can be continued, but its cursor not invented."""

from dataclasses import dataclass
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ias.contracts.ids import uuid7
from ias.kit.cursors import Cursors
from ias.kit.problems import BadRequestError

CURSORS = Cursors(bytes(32))


@dataclass
class Row:
    id: UUID


@given(st.uuids(), st.text())
def test_a_cursor_gives_back_the_id_it_was_made_of(last_id: UUID, filters: str) -> None:
    assert CURSORS.decode(CURSORS.encode(last_id, filters), filters) == last_id


def test_no_cursor_is_the_first_page() -> None:
    assert CURSORS.decode(None, "any") is None


@given(st.text(max_size=60))
def test_an_invented_cursor_is_a_clear_400(text: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        CURSORS.decode(text)
    assert refused.value.code == "invalid_cursor"


@given(st.data())
def test_one_changed_character_makes_it_invalid_or_another_spelling_of_the_same(data: st.DataObject) -> None:
    last_id = uuid7()
    cursor = CURSORS.encode(last_id)
    place = data.draw(st.integers(0, len(cursor) - 1))
    changed = cursor[:place] + data.draw(st.sampled_from("AZaz09-_")) + cursor[place + 1 :]
    try:
        assert CURSORS.decode(changed) == last_id
    except BadRequestError:
        assert changed != cursor


def test_a_cursor_is_of_one_list_and_one_platform() -> None:
    cursor = CURSORS.encode(uuid7(), "models name=a")
    for cursors, filters in ((CURSORS, "models name=b"), (CURSORS, ""), (Cursors(b"1" * 32), "models name=a")):
        with pytest.raises(BadRequestError):
            cursors.decode(cursor, filters)


@given(st.integers(0, 12), st.integers(1, 5))
def test_pages_join_to_the_whole_list(count: int, limit: int) -> None:
    rows = sorted((Row(uuid7()) for _ in range(count)), key=lambda row: row.id, reverse=True)
    seen: list[Row] = []
    cursor = None
    for _ in range(count + 1):
        after = CURSORS.decode(cursor)
        rest = [row for row in rows if after is None or row.id < after]
        page = CURSORS.page(rest[: limit + 1], limit)
        assert len(page.data) <= limit
        seen += page.data
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == rows

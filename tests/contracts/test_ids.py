"""Ids sort by the time they were made and are never the same."""

import time
from uuid import RFC_4122, UUID

from hypothesis import given
from hypothesis import strategies as st

from ias.contracts.ids import REQUEST_ID_PREFIX, request_id_of, uuid7


def test_an_id_is_a_uuid_of_version_7() -> None:
    for _ in range(200):
        made = uuid7()
        assert (made.version, made.variant) == (7, RFC_4122)


def test_an_id_tells_when_it_was_made() -> None:
    before = time.time_ns() // 1_000_000
    millis = uuid7().int >> 80
    assert before <= millis <= time.time_ns() // 1_000_000


def test_ids_made_in_different_milliseconds_sort_by_time() -> None:
    ids = []
    for _ in range(5):
        ids.append(uuid7())
        time.sleep(0.002)
    assert ids == sorted(ids)
    assert [str(i) for i in ids] == sorted(str(i) for i in ids)


def test_ids_do_not_repeat() -> None:
    assert len({uuid7() for _ in range(20_000)}) == 20_000


@given(st.uuids())
def test_a_request_id_leads_back_to_the_record(record_id: UUID) -> None:
    request_id = request_id_of(record_id)
    assert UUID(hex=request_id.removeprefix(REQUEST_ID_PREFIX)) == record_id

"""Ids made in the quick way are what `contracts.ids` says they are."""

import time
from uuid import UUID

from ias.contracts.ids import request_id_of, uuid7
from ias.gateway.request_ids import RequestIds


def test_ids_are_uuids_of_version_7_and_differ() -> None:
    ids = RequestIds()
    made = [ids.next_hex() for _ in range(1000)]
    assert len(set(made)) == 1000
    for digits in made:
        parsed = UUID(digits)
        assert (parsed.version, parsed.variant) == (7, uuid7().variant)
        assert request_id_of(parsed) == f"req_{digits}"
        assert abs((parsed.int >> 80) - time.time_ns() // 1_000_000) < 60_000

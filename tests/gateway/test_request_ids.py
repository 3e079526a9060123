"""Ids made in the quick way are what `contracts.ids` says they are."""

import time
from uuid import UUID

from ias.contracts.ids import request_id_of, uuid7
from ias.gateway.request_ids import RequestIds


def test_ids_are_uuids_of_version_7_and_differ() -> None:
    ids = RequestIds()
    made = [ids.make() for _ in range(1000)]
    assert len({digits for digits, _, _ in made}) == 1000
    for digits, spelt_out, made_at in made:
        parsed = UUID(digits)
        assert str(parsed) == spelt_out
        assert (parsed.version, parsed.variant) == (7, uuid7().variant)
        assert request_id_of(parsed) == f"req_{digits}"
        assert parsed.int >> 80 == round(made_at * 1000)
        assert abs((parsed.int >> 80) - time.time_ns() // 1_000_000) < 60_000

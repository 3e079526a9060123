"""Which usage records can be booked: the same for every consumer."""

import json
from pathlib import Path
from typing import Any

import pytest

from ias.contracts.usage_messages import UnreadableMessageError, check_message
from tests.billing.usage import broken, make_record, message

EXAMPLES = sorted((Path(__file__).parents[2] / "contracts" / "events").glob("usage_recorded.v*.example.json"))
"""One for each version of the schema that gateways have ever published: spools and queues may still hold it."""
ORG_ID = "0190f3c0-0000-7000-8000-000000000001"


@pytest.mark.parametrize(
    "changed",
    [
        {"org_id": "acme"},
        {"id": "c0ffee"},
        {"id": "9b2f1f9e-6c1b-4b5e-8d0a-3f6f5a1c2d3e"},
        {"id": "ffffffff-ffff-7fff-bfff-ffffffffffff"},
        {"input_tokens": -1},
        {"output_tokens": 2**40},
        {"cached_input_tokens": 1001},
        {"cost_nano_usd": -5},
        {"occurred_at": "yesterday"},
        {"occurred_at": "2026-11-23T00:00:00"},
        {"occurred_at": "0001-01-01T00:00:00+01:00"},
        {"outcome": "vanished"},
        {"decision": None},
        {"price_id": "1"},
        {"model": "nul\0"},
        {"decision": {"why": ["\0"]}},
        {"cost_nano_usd": 2**63},
        {"price_version": 2**31},
        {"duration_ms": -1.0},
    ],
)
def test_a_record_that_cannot_be_booked_is_told_apart(changed: dict[str, Any]) -> None:
    good = make_record(ORG_ID)
    batch = check_message(message(broken(make_record(ORG_ID), **changed), good))
    assert [checked.record for checked in batch.records] == [good]
    assert len(batch.refusals) == 1
    assert batch.refusals[0].startswith("record 0: ")


def test_a_text_about_nul_is_not_a_nul() -> None:
    record = make_record(ORG_ID, decision={"why": "\\u0000"})
    assert [checked.record for checked in check_message(message(record)).records] == [record]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"schema":"usage_recorded/2","records":[]}',
        b"\xff\xfe",
        rb'{"schema":"usage_recorded/1","records":["\ud800"]}',
    ],
)
def test_a_message_that_cannot_be_read_says_so(body: bytes) -> None:
    with pytest.raises(UnreadableMessageError):
        check_message(body)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_what_gateways_of_any_version_have_published_can_be_booked(example: Path) -> None:
    stored = json.loads(example.read_text())
    batch = check_message(example.read_bytes())
    assert batch.refusals == []
    assert [str(checked.id) for checked in batch.records] == [record["id"] for record in stored["records"]]


def test_what_a_newer_gateway_says_besides_is_passed_over() -> None:
    newer = broken(make_record(ORG_ID), said_by_a_newer_gateway={"any": "thing"})
    assert check_message(message(newer)).refusals == []

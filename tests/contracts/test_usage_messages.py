"""Which usage records can be booked: the same for every consumer."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from ias.contracts.usage_messages import CheckedRecord, UnreadableMessageError, check_message
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
    assert [str(record.id) for record in batch.records] == [good.id]
    assert len(batch.refusals) == 1
    assert batch.refusals[0].startswith("record 0: ")


def test_a_text_about_nul_is_not_a_nul() -> None:
    record = make_record(ORG_ID, decision={"why": "\\u0000"})
    assert as_sent(check_message(message(record)).records[0]) == msgspec.to_builtins(record)


def test_a_record_is_read_as_it_was_sent() -> None:
    record = make_record(ORG_ID, price_id=str(uuid4()), price_version=3, decision={"backend": "b", "budgets": ["€"]})
    [read] = check_message(message(record)).records
    assert as_sent(read) == msgspec.to_builtins(record)


def as_sent(record: CheckedRecord) -> Any:
    sent = {name: getattr(record, name) for name in record.__struct_fields__}
    return msgspec.to_builtins(sent | {"decision": msgspec.json.decode(record.decision)})


@pytest.mark.parametrize("decision", [b'{"a":"\xff"}', rb'{"a":"\ud800"}', b"[1]", b'"{}"', b"{" * 3000])
def test_a_decision_that_cannot_be_kept_is_refused_with_its_record(decision: bytes) -> None:
    body = message(make_record(ORG_ID, decision={"here": 1}), make_record(ORG_ID))
    changed = body.replace(b'{"here":1}', decision)
    try:
        batch = check_message(changed)
    except UnreadableMessageError:
        return
    assert (len(batch.records), len(batch.refusals)) == (1, 1)


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
    assert [str(one.id) for one in batch.records] == [record["id"] for record in stored["records"]]


def test_what_a_newer_gateway_says_besides_is_passed_over() -> None:
    newer = broken(make_record(ORG_ID), said_by_a_newer_gateway={"any": "thing"})
    assert check_message(message(newer)).refusals == []

"""Denials are counted together when there are many, wait while they cannot be written, and are bounded in memory."""

from collections.abc import Sequence
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry

from ias.contracts.events import AuditRecord
from ias.kit.audit import Cause, Denial
from ias.kit.denials import MORE, Denials

ORG = UUID(int=7)


class Sink:
    """Takes what is written, or refuses to."""

    def __init__(self) -> None:
        self.away = False
        self.now = 0.0
        self.records: list[AuditRecord] = []

    async def write(self, records: Sequence[AuditRecord]) -> None:
        if self.away:
            raise OSError
        self.records += records

    def counts(self) -> list[tuple[str, int]]:
        return [(record.target_id, record.count) for record in self.records]


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def denials(sink: Sink) -> Denials:
    return Denials("probe", sink.write, CollectorRegistry(), per_caller_max=3, total_max=8, clock=lambda: sink.now)


def denial(target: str = "GET /x", actor: str = "a", request_id: str = "req_1", org_id: UUID | None = ORG) -> Denial:
    return Denial("budgets:read", target, "forbidden", org_id, Cause("user", actor, request_id, "192.0.2.1", "curl"))


async def test_the_first_is_written_at_once_and_equal_ones_once_more_with_their_number(
    denials: Denials, sink: Sink
) -> None:
    for number in range(5):
        denials.note(denial(request_id=f"req_{number}"))
        await denials.flush()
    assert sink.counts() == [("GET /x", 1)]
    assert sink.records[0].request_id == "req_0"
    sink.now += 61
    await denials.flush()
    assert sink.counts() == [("GET /x", 1), ("GET /x", 4)]


async def test_a_caller_who_tries_everything_fills_a_few_records_and_one_that_counts_the_rest(
    denials: Denials, sink: Sink
) -> None:
    for number in range(1000):
        denials.note(denial(target=f"GET /{number}"))
    denials.note(denial(target="GET /other", actor="b"))
    await denials.flush()
    assert sink.counts() == [("GET /0", 1), ("GET /1", 1), ("GET /2", 1), ("GET /other", 1), (MORE, 997)]
    assert (sink.records[-1].actor_id, sink.records[-1].org_id) == ("a", None)


async def test_many_callers_together_are_bounded_too(denials: Denials, sink: Sink) -> None:
    for number in range(1000):
        denials.note(denial(actor=f"actor {number}"))
    await denials.flush()
    assert len(sink.records) == 9
    assert sum(record.count for record in sink.records) == 1000


async def test_what_cannot_be_written_waits_is_counted_and_stays_bounded(denials: Denials, sink: Sink) -> None:
    sink.away = True
    for minute in range(5):
        for number in range(20):
            denials.note(denial(actor=f"actor {minute} {number}"))
        await denials.flush()
        sink.now += 61
    sink.away = False
    await denials.flush()
    assert sum(record.count for record in sink.records) == 100
    assert len(sink.records) == 9


async def test_a_new_minute_writes_the_first_at_once_again(denials: Denials, sink: Sink) -> None:
    denials.note(denial())
    await denials.flush()
    sink.now += 61
    await denials.flush()
    denials.note(denial(request_id="req_2"))
    await denials.flush()
    assert [record.request_id for record in sink.records] == ["req_1", "req_2"]

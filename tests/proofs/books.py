"""The engine's own count of what it served, held against the ledger, request by request.

What is promised: every request that the engine served is booked, once. Where the gateway lived to see the end, the entry says what
the engine sent, to the token; of a stream that its client left, what had reached the gateway by then. Where there was no such
count, the entry is marked as estimated: the reservation of a gateway that died is no less than what was served; of a stream that
it had noted on disk, what was passed on by then is booked, which is no more.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from ias.contracts.ids import REQUEST_ID_PREFIX
from ias.contracts.money import cost_nano_usd
from ias.gateway.stream_progress import WHY
from tests.proofs.load import Answered

Counts = tuple[int, int, int]
"""Input, cached input and output tokens."""


@dataclass(frozen=True)
class Served:
    """One request as the engine saw it."""

    counts: Counts
    is_complete: bool


@dataclass(frozen=True)
class Entry:
    """One line of the ledger."""

    request_id: str
    org_id: str
    counts: Counts
    cost_nano_usd: int
    estimated: bool
    rating: str
    why: str | None
    """What the gateway's decision says of how it was counted."""

    @property
    def is_interrupted(self) -> bool:
        """Whether it is what a stream had passed on whose gateway died."""
        return self.why == WHY


@dataclass
class Findings:
    """What the comparison found; the lists are to be empty."""

    served: int = 0
    exact: int = 0
    left: int = 0
    """Streams that their clients left: booked at what the gateway had seen."""
    estimated: int = 0
    interrupted: int = 0
    """Of these: streams whose gateway died, booked at what it had passed on when it last noted that."""
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        return [*self.lost, *self.doubled, *self.wrong]


def read_engine_log(path: Path) -> dict[str, Served]:
    """What the engine served, by request. Of several attempts the last counts: the others served nothing to anybody."""
    served = {}
    for line in path.read_text().splitlines():
        if not line.startswith("{"):
            continue
        told = json.loads(line)
        if told.get("status") == 200 and "prompt_tokens" in told:
            counts = told["prompt_tokens"], told["cached_tokens"], told["completion_tokens"]
            served[REQUEST_ID_PREFIX + told["request_id"]] = Served(counts, told["complete"])
    return served


async def read_ledger(dsn: str) -> list[Entry]:
    """Every entry for usage."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("SET ias.orgs = '*'")
        rows = await connection.fetch("SELECT * FROM ledger_entries WHERE kind = 'usage'")
    finally:
        await connection.close()
    return [_entry(row) for row in rows]


def _entry(row: Mapping[str, Any]) -> Entry:
    counts = row["input_tokens"], row["cached_input_tokens"], row["output_tokens"]
    return Entry(
        row["request_id"],
        str(row["org_id"]),
        counts,
        row["cost_nano_usd"],
        row["estimated"],
        row["rating"],
        json.loads(row["decision"]).get("why"),
    )


@dataclass(frozen=True)
class Rates:
    """Nano-USD per million tokens."""

    input_nano_usd_per_million: int
    cached_input_nano_usd_per_million: int
    output_nano_usd_per_million: int
    request_nano_usd: int = 0

    def cost(self, counts: Counts) -> int:
        return cost_nano_usd(self, input_tokens=counts[0], cached_input_tokens=counts[1], output_tokens=counts[2])


def compare(
    served: Mapping[str, Served], entries: Iterable[Entry], answered: Mapping[str, Answered], rates: Rates
) -> Findings:
    """Hold the ledger against the engine's log and what clients were told."""
    findings = Findings(served=len(served))
    by_request: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_request[entry.request_id].append(entry)
    for request_id, one in served.items():
        booked = by_request.pop(request_id, [])
        if booked:
            _compare_one(findings, one, booked, answered.get(request_id), rates)
        else:
            findings.lost.append(f"{request_id}: served {one}, told {answered.get(request_id)}, not booked")
    for request_id, booked in by_request.items():
        if any(not entry.estimated for entry in booked):
            findings.wrong.append(f"{request_id}: booked {booked}, never served")
    return findings


def _compare_one(findings: Findings, served: Served, booked: list[Entry], told: Answered | None, rates: Rates) -> None:
    request_id = booked[0].request_id
    cost, due = sum(entry.cost_nano_usd for entry in booked), rates.cost(served.counts)
    real = [entry for entry in booked if entry.rating != "reserved"]
    if not real:
        findings.estimated += 1
        if cost < due:
            findings.wrong.append(f"{request_id}: estimated at {cost}, served for {due}")
        return
    [*more, entry] = real
    if more or cost != rates.cost(entry.counts):
        findings.doubled.append(f"{request_id}: {booked}")
    elif entry.is_interrupted and not 0 < entry.counts[2] <= served.counts[2]:
        findings.wrong.append(f"{request_id}: served {served}, booked {entry} of an interrupted stream")
    elif entry.estimated:
        findings.estimated += 1
        findings.interrupted += entry.is_interrupted
    elif entry.counts == served.counts:
        findings.exact += 1
    elif served.is_complete and (told is None or told.is_whole):
        findings.wrong.append(f"{request_id}: served {served}, booked {entry}, told {told}")
    elif entry.counts[2] > served.counts[2] or (told is not None and entry.counts[2] < told.events):
        findings.wrong.append(f"{request_id}: served {served}, booked {entry}, of which {told} arrived")
    else:
        findings.left += 1

"""The ledger: entries are added, and never changed or removed (the database refuses it)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypedDict, Unpack
from uuid import UUID

import msgspec
from sqlalchemy import Select, func, select, text
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.billing.store.tables import LEDGER_ENTRIES
from ias.contracts.ids import uuid7
from ias.kit.partitions import uuid_floor

Kind = Literal["usage", "correction", "credit"]
Rating = Literal["rated", "repriced", "unpriced", "price_unknown", "adjusted", "reserved", "rerated"]
"""How the cost came about: the price agreed with the gateway; the price's own result replaced the gateway's figure; the request had
no price; the price it names is not in the table, and the gateway's figure was booked; a person decided (corrections, credits);
its gateway died, and all that it had reserved was booked; the price was set or changed afterwards, and this is the difference."""


class CorrectionTerms(TypedDict, total=False):
    """What a correction may say of itself in place of what it corrects."""

    rating: Rating
    price_id: UUID
    price_version: int
    decision: dict[str, Any]


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One booking. `cost_nano_usd` is what counts; `settled_nano_usd` is what the gateway had counted in the budgets."""

    id: UUID
    kind: Kind
    org_id: UUID
    project_id: UUID | None
    api_key_id: UUID | None
    user_id: UUID | None
    service_account_id: UUID | None
    request_id: str | None
    endpoint: str | None
    model: str | None
    backend_id: str | None
    streamed: bool | None
    status: int | None
    outcome: str | None
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    cost_nano_usd: int
    settled_nano_usd: int
    price_id: UUID | None
    price_version: int | None
    rating: Rating
    estimated: bool
    occurred_at: datetime
    decision: dict[str, Any] | msgspec.Raw
    """Why. On its way into the table also as a gateway wrote it: a JSON object."""

    @property
    def told(self) -> dict[str, Any]:
        """The decision, read."""
        if isinstance(self.decision, msgspec.Raw):
            return msgspec.json.decode(self.decision, type=dict[str, Any])
        return self.decision

    @property
    def reason(self) -> str | None:
        """What a person said who decided, of corrections and credits."""
        return None if self.kind == "usage" else self.told.get("reason")

    def correct(self, difference_nano_usd: int, **terms: Unpack[CorrectionTerms]) -> "LedgerEntry":
        """The entry that makes this one cost so much more (or less), booked now: no tokens, nothing that a gateway counted."""
        return msgspec.structs.replace(
            self,
            id=uuid7(),
            kind="correction",
            input_tokens=0,
            cached_input_tokens=0,
            output_tokens=0,
            cost_nano_usd=difference_nano_usd,
            settled_nano_usd=0,
            estimated=False,
            occurred_at=datetime.now(UTC),
            **terms,
        )


@dataclass(frozen=True, slots=True)
class LedgerFilter:
    """Which of an org's entries are asked for. `start` and `end` bound the time at which the request was admitted."""

    org_id: UUID
    request_id: str | None = None
    project_id: UUID | None = None
    api_key_id: UUID | None = None
    user_id: UUID | None = None
    model: str | None = None
    kind: Kind | None = None
    start: datetime | None = None
    end: datetime | None = None


_NAMES = LedgerEntry.__struct_fields__
_DIALECT = PGDialect()  # type: ignore[no-untyped-call]  # SQLAlchemy does not type it
_TYPES = {name: LEDGER_ENTRIES.c[name].type.compile(_DIALECT) for name in _NAMES} | {"decision": "text"}
_INSERT = text(
    f"""
    INSERT INTO ledger_entries ({", ".join(_NAMES)})
    SELECT {", ".join(f"CAST({name} AS jsonb)" if name == "decision" else name for name in _NAMES)}
    FROM unnest({", ".join(f"CAST(:{name} AS {_TYPES[name]}[])" for name in _NAMES)}) AS t ({", ".join(_NAMES)})
    ORDER BY id
    ON CONFLICT (id) DO NOTHING
    RETURNING id
    """  # noqa: S608  # every part is the name of a column
)
# In the order of the ids, so that two transactions that book the same records wait for each other and never deadlock.


async def insert_entries(connection: AsyncConnection, entries: Sequence[LedgerEntry]) -> set[UUID]:
    """Book entries; the ids of those that were not booked before."""
    columns: dict[str, list[Any]] = {name: [getattr(entry, name) for entry in entries] for name in _NAMES}
    columns["decision"] = [msgspec.json.encode(decision).decode() for decision in columns["decision"]]
    return set((await connection.execute(_INSERT, columns)).scalars())


async def list_reserved(connection: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, int]:
    """Those of the entries that stand for an expired reservation, with their cost in nano-USD."""
    table = LEDGER_ENTRIES
    query = select(table.c.id, table.c.cost_nano_usd).where(table.c.id.in_(list(ids)), table.c.rating == "reserved")
    return {row.id: row.cost_nano_usd for row in await connection.execute(query)}


async def sum_costs(connection: AsyncConnection, org_id: UUID, request_ids: Collection[str]) -> dict[str, int]:
    """Nano-USD that requests of an org are booked with; corrections, which budgets know by another way, are left out."""
    table = LEDGER_ENTRIES
    query = (
        select(table.c.request_id, func.sum(table.c.cost_nano_usd).label("cost"))
        .where(table.c.org_id == org_id, table.c.request_id.in_(list(request_ids)), table.c.kind == "usage")
        .group_by(table.c.request_id)
    )
    return {row.request_id: int(row.cost) for row in await connection.execute(query)}


async def lock_request(connection: AsyncConnection, org_id: UUID, request_id: str) -> None:
    """Let nobody else correct a request, or re-rate its org, until the transaction ends."""
    await connection.execute(
        text("SELECT pg_advisory_xact_lock_shared(hashtextextended(:org, 0))"), {"org": f"correction {org_id}"}
    )
    await connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": f"correction {org_id} {request_id}"}
    )


async def lock_requests(connection: AsyncConnection, org_id: UUID) -> None:
    """Let nobody else correct any of an org's requests until the transaction ends."""
    await connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:org, 0))"), {"org": f"correction {org_id}"}
    )


@dataclass(frozen=True, slots=True)
class RequestTotal:
    """What is booked for a request by now."""

    cost_nano_usd: int
    was_corrected: bool
    """Somebody decided what it costs."""
    was_reserved: bool
    """Its gateway died: what it used was not known at first, and perhaps never."""


async def total_requests(
    connection: AsyncConnection, org_id: UUID, request_ids: Collection[str]
) -> dict[str, RequestTotal]:
    """Totals of an org's requests, corrections of every kind included."""
    table = LEDGER_ENTRIES
    query = (
        select(
            table.c.request_id,
            func.sum(table.c.cost_nano_usd).label("cost"),
            func.bool_or(table.c.rating == "adjusted").label("was_corrected"),
            func.bool_or(table.c.rating == "reserved").label("was_reserved"),
        )
        .where(table.c.org_id == org_id, table.c.request_id.in_(list(request_ids)))
        .group_by(table.c.request_id)
    )
    return {
        row.request_id: RequestTotal(int(row.cost), row.was_corrected, row.was_reserved)
        for row in await connection.execute(query)
    }


async def list_entries(
    connection: AsyncConnection, wanted: LedgerFilter, *, before: UUID | None = None, limit: int
) -> list[LedgerEntry]:
    """Entries, newest first."""
    query = _select(wanted)
    if before is not None:
        query = query.where(LEDGER_ENTRIES.c.id < before)
    rows = await connection.execute(query.order_by(LEDGER_ENTRIES.c.id.desc()).limit(limit))
    return [LedgerEntry(**row) for row in rows.mappings()]


async def list_entries_after(
    connection: AsyncConnection, wanted: LedgerFilter, *, after: UUID | None, limit: int
) -> list[LedgerEntry]:
    """Entries, oldest first."""
    query = _select(wanted)
    if after is not None:
        query = query.where(LEDGER_ENTRIES.c.id > after)
    rows = await connection.execute(query.order_by(LEDGER_ENTRIES.c.id).limit(limit))
    return [LedgerEntry(**row) for row in rows.mappings()]


def _select(wanted: LedgerFilter) -> Select[Any]:
    table = LEDGER_ENTRIES
    query = select(*(table.c[name] for name in _NAMES)).where(table.c.org_id == wanted.org_id)
    for name in ("request_id", "project_id", "api_key_id", "user_id", "model", "kind"):
        value = getattr(wanted, name)
        if value is not None:
            query = query.where(table.c[name] == value)
    if wanted.start is not None:
        query = query.where(table.c.id >= uuid_floor(wanted.start))
    if wanted.end is not None:
        query = query.where(table.c.id < uuid_floor(wanted.end))
    return query

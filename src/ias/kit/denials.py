"""Denials: every refusal is written down, in a transaction of its own, and no flood of them can fill the database.

A route's refusal is noted in memory, which never fails and never waits. A fraction of a second later it is written. Equal ones
(same caller, route, permission and reason) are written once and then counted for the rest of a minute, as one more record with
their number. One caller gets so many different records a minute, and all callers together so many; what is beyond is counted
in one record for the caller, and one for everybody. A process that is killed loses what it noted last.
"""

import asyncio
import time
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import structlog
from fastapi import Request
from prometheus_client import CollectorRegistry, Counter

from ias.contracts.events import AuditRecord
from ias.kit.audit import Cause, Denial, make_denial_record
from ias.kit.origins import origin_of
from ias.kit.pauses import wait_or_stop
from ias.kit.problems import ProblemError
from ias.kit.tokens import Claims

log = structlog.get_logger("ias.denials")

PER_CALLER_MAX = 120
TOTAL_MAX = 1_000
"""Different records a window, for one caller and for all."""
MORE = "*"
"""Stands for the action and the route where different denials are counted together."""
_WINDOW_S = 60.0
_FLUSH_INTERVAL_S = 0.25
_WRITE_TIMEOUT_S = 5.0

Write = Callable[[Sequence[AuditRecord]], Awaitable[object]]
"""Writes records of one org, in one transaction."""


@dataclass(slots=True)
class _Counted:
    first: Denial
    count: int = 0


class Denials:
    """The denials of one process that were not written yet."""

    def __init__(
        self,
        service: str,
        write: Write,
        registry: CollectorRegistry,
        *,
        per_caller_max: int = PER_CALLER_MAX,
        total_max: int = TOTAL_MAX,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._write = write
        self._per_caller_max = per_caller_max
        self._total_max = total_max
        self._clock = clock
        self._window_ends_at = clock() + _WINDOW_S
        self._pending: dict[Denial, _Counted] = {}
        self._written: set[Denial] = set()
        self._keys_of: Tally[tuple[str | None, str | None]] = Tally()
        self._noted = Counter(f"ias_{service}_denials", "Requests refused.", ("reason",), registry=registry)
        self._unwritten = Counter(
            f"ias_{service}_denials_unwritten", "Times that denials could not be written and waited.", registry=registry
        )

    def note(self, denial: Denial) -> None:
        """Have a denial written soon."""
        self._noted.labels(denial.reason).inc()
        key = self._key(denial)
        self._pending.setdefault(key, _Counted(key if key.action == MORE else denial)).count += 1

    async def run(self, stop: asyncio.Event) -> None:
        """Write what was noted, until told to stop; then everything that is left."""
        while not stop.is_set():
            await wait_or_stop(stop, _FLUSH_INTERVAL_S)
            await self.flush(everything=stop.is_set())

    async def flush(self, *, everything: bool = False) -> None:
        """Write what was noted and not written in this window; at the window's end, or when asked for, all of it."""
        if self._clock() >= self._window_ends_at:
            self._window_ends_at = self._clock() + _WINDOW_S
            self._written.clear()
            self._keys_of = Tally(_caller(key) for key in self._pending)
        due = [key for key in self._pending if everything or key not in self._written]
        for org_id in dict.fromkeys(key.org_id for key in due):
            await self._write_org(org_id, [key for key in due if key.org_id == org_id])

    async def _write_org(self, org_id: UUID | None, keys: list[Denial]) -> None:
        counted = {key: self._pending.pop(key) for key in keys}
        records = [make_denial_record(self._service, one.first, one.count) for one in counted.values()]
        try:
            async with asyncio.timeout(_WRITE_TIMEOUT_S):
                await self._write(records)
        except Exception as error:  # noqa: BLE001  # the database is away, whatever the driver calls it: they wait, bounded
            log.warning("denials wait to be written", error=type(error).__name__, org_id=str(org_id), waiting=len(keys))
            self._unwritten.inc()
            for key, one in counted.items():
                self._pending.setdefault(key, _Counted(one.first)).count += one.count
        else:
            self._written.update(keys)

    def _key(self, denial: Denial) -> Denial:
        """What the denial is counted under: itself but for its request, or less when there are too many."""
        cause = replace(denial.cause, request_id=None, user_agent=None)
        key = replace(denial, cause=cause)
        if key in self._pending or key in self._written:
            return key
        caller = _caller(key)
        if len(self._pending) + len(self._written) >= self._total_max:
            return Denial(MORE, MORE, "denied", None, Cause("anonymous", None))
        if self._keys_of[caller] >= self._per_caller_max:
            return Denial(MORE, MORE, "denied", None, cause)
        self._keys_of[caller] += 1
        return key


def note_denial(request: Request, error: ProblemError) -> None:
    """Note an answer that refuses a guarded route to its caller: 401, 403, or a 404 that may hide another org's object.

    Whether a 404 hides something is often known to nobody: the query did not reach the row. To a platform admin it hides nothing.
    """
    denials: Denials | None = getattr(request.app.state, "denials", None)
    guard: str | None = getattr(request.state, "guard", None)
    actor: Claims | None = getattr(request.state, "actor", None)
    is_denial = error.status in (401, 403) or (error.status == 404 and actor is not None and not actor.platform_admin)
    if denials is None or guard is None or not is_denial:
        return
    origin = origin_of(request)
    denials.note(
        Denial(
            action=guard,
            target=f"{request.method} {request.url.path}",
            reason=error.code,
            org_id=_org_of(request, error, actor),
            cause=origin.by(actor) if actor else origin.by_nobody(),
        )
    )


def _org_of(request: Request, error: ProblemError, actor: Claims | None) -> UUID | None:
    """Whose wall it was: what the error says, else the path, else the one org the caller belongs to."""
    if actor is None:
        return None  # nobody fills an org's log without being known
    orgs = {org_id for org_id, _, _ in actor.grants}
    named: list[Any] = [error.org_id, request.path_params.get("org_id"), request.query_params.get("org_id")]
    for text in [*named, *(orgs if len(orgs) == 1 else ())]:
        try:
            return UUID(str(text))
        except ValueError:
            continue
    return None


def _caller(key: Denial) -> tuple[str | None, str | None]:
    return key.cause.actor_id, key.cause.source_ip

"""What engines counted, held against the ledger: approximately, since engines count as they go and books when a request is over.

Between two readings of an engine's counters it must have counted no less than the requests that lie wholly in between, and no more
than all that were under way at some time in between. A share beyond that is let pass: what engines make for streams that are cut
off, for requests that are tried again elsewhere and for gateways that are killed is counted by them alone.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ias.billing.core.registry_client import EngineSum, RegistryClient
from ias.billing.store.book_sums import Figures
from ias.billing.store.engine_sums import ServedTokens, Span, bound_served
from ias.kit.database import Database

_SLACK_TOKENS = 500
"""Differ about nothing: what a request or two make that are cut off."""
_BOOKED_WITHIN = timedelta(seconds=10)
"""Of its end a request is in the ledger, as a rule."""


@dataclass(frozen=True, slots=True)
class EngineDifference:
    """An engine that counted more or less than the books can account for."""

    server: str
    expected: Figures
    """By the ledger: of what it may be, the nearest."""
    found: Figures
    """By the engine; with how often it was started anew, for what it counted last before that nobody knows."""


class EngineCheck:
    """Compares. Raises `httpx.HTTPError`, `KeyError`, `ValueError` where the registry cannot be asked."""

    def __init__(
        self, database: Database, registry: RegistryClient, *, tolerance: float, uncertainty: timedelta
    ) -> None:
        """`tolerance` is the share of what was served by which the engine may differ."""
        self._database = database
        self._registry = registry
        self._tolerance = tolerance
        self._uncertainty = uncertainty

    async def list_differences(self, start: datetime, end: datetime) -> list[EngineDifference]:
        """Of each server whose engine tells, between its first and its last reading in a period."""
        engines = await self._registry.sum_engines(start, min(end, datetime.now(UTC) - _BOOKED_WITHIN))
        if not engines:
            return []
        spans = [Span(engine.served_ids, engine.first_at, engine.last_at) for engine in engines]
        async with self._database.transaction() as connection:
            served = await bound_served(connection, spans, uncertainty=self._uncertainty)
        found = (self._compare(engine, one) for engine, one in zip(engines, served, strict=True))
        return [difference for difference in found if difference is not None]

    def _compare(self, engine: EngineSum, served: ServedTokens) -> EngineDifference | None:
        expected, found = {}, {}
        for name, bounds, counted in (
            ("input_tokens", served.input, engine.input_tokens),
            ("output_tokens", served.output, engine.output_tokens),
        ):
            slack = _SLACK_TOKENS + self._tolerance * bounds.most
            if not bounds.least - slack <= counted <= bounds.most + slack:
                expected[name], found[name] = bounds.least if counted < bounds.least else bounds.most, counted
        if not found:
            return None
        if engine.restarts:
            found["restarts"] = engine.restarts
        return EngineDifference(engine.server, expected, found)

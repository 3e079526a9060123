"""How far long streams have come, on disk every few seconds: what is billed of them should the worker be killed.

Beside its segments a worker keeps one file. For each stream that has run for an interval it holds the usage record that the stream
would get if it ended now; it is written anew, for all of them, in one go. A request as such, and a stream that ends sooner, costs
nothing. The worker that adopts the directory of a dead one makes usage records of these lines (`find_interrupted`).

A record of a request is published only after its line here is gone (`forget_ended`). So where a line is left and no record of the
same request lies beside it, none was ever published: nothing can be billed twice, or at two different counts.
"""

import contextlib
import re
from collections.abc import Iterable
from pathlib import Path
from time import perf_counter

import msgspec
import structlog

from ias.contracts.events import UsageRecord
from ias.gateway.context import Gateway
from ias.gateway.exchange import Exchange
from ias.gateway.record import find_lines, find_timing
from ias.gateway.settle import cost_of
from ias.gateway.spool import PROGRESS_NAME, PROGRESS_UNFINISHED_NAME, Spool, SpoolDirectory
from ias.gateway.token_counts import TokenCounts

WHY = "the gateway died: what it had passed on when it last noted that is counted"
_ID = re.compile(rb'\{"id":"([0-9a-f-]{36})"')
"""How `record_lines` begins every record."""

log = structlog.get_logger("ias.gateway.spool")


class StreamProgress:
    """One worker's file."""

    def __init__(self, spool: Spool, *, interval_s: float) -> None:
        self._spool = spool
        self.interval_s = interval_s
        self._noted: list[tuple[Exchange, bytes]] = []
        """What the file holds; there is none where it is empty."""

    def note(self, exchanges: Iterable[Exchange], gateway: Gateway) -> None:
        """Write down how far the streams have come that have run for an interval."""
        since = perf_counter() - self.interval_s
        long = [one for one in exchanges if one.streamed and one.started <= since and not one.is_over]
        if long or self._noted:
            self._write([(exchange, line) for exchange in long if (line := _line(exchange, gateway))])

    def forget_ended(self) -> None:
        """Drop the lines of streams that have ended: their records are in the segments. Called before these are published."""
        left = [(exchange, line) for exchange, line in self._noted if not exchange.is_over]
        if len(left) < len(self._noted):
            self._write(left)

    def _write(self, noted: list[tuple[Exchange, bytes]]) -> None:
        self._spool.flush()  # the records of those that ended are on disk before their lines are gone
        directory = self._spool.directory.path
        path, unfinished = directory / PROGRESS_NAME, directory / PROGRESS_UNFINISHED_NAME
        try:
            if noted:
                unfinished.write_bytes(b"".join(line for _, line in noted))
                unfinished.replace(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("stream_progress_not_written", error=str(error))
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)  # rather the whole reservation than a line that its record contradicts
            noted = []
        self._noted = noted


def _line(exchange: Exchange, gateway: Gateway) -> bytes:
    """The usage record of a stream if it ended now; empty where nothing has been passed on yet."""
    try:
        usage = None if exchange.relay is None else exchange.relay.count_so_far()
        if usage is None:
            return b""
        exchange.usage = TokenCounts(usage.input_tokens, usage.cached_input_tokens, usage.output_tokens, estimated=True)
        if exchange.price is not None:
            exchange.cost_nano_usd = cost_of(usage, exchange.price)
        return find_lines(exchange).usage_record(exchange, find_timing(exchange, gateway)).encode()
    except Exception:  # a fault with one stream must not stop the worker's clock, which calls this
        log.exception("stream_progress_failed", request_id=exchange.request_id)
        return b""
    finally:  # it goes on
        exchange.usage, exchange.cost_nano_usd = None, 0


def find_interrupted(directory: SpoolDirectory) -> list[UsageRecord]:
    """What streams had passed on that were under way when a worker died. To be asked before its segments are published."""
    records = {record.id: record for record in _read_lines(directory.path / PROGRESS_NAME)}
    if not records:
        return []
    for segment in directory.list_segments():
        with segment.open("rb") as file:
            for line in file:
                found = _ID.match(line)
                if found:
                    records.pop(found[1].decode(), None)
    return [_explain(record) for record in records.values()]


def forget_interrupted(directory: SpoolDirectory) -> None:
    """What `find_interrupted` found is with the bus."""
    (directory.path / PROGRESS_NAME).unlink(missing_ok=True)


def _read_lines(path: Path) -> list[UsageRecord]:
    try:
        return msgspec.json.Decoder(UsageRecord).decode_lines(path.read_bytes())
    except FileNotFoundError:
        return []
    except msgspec.MsgspecError as error:  # it is written whole; a power cut may have left anything
        log.error("stream_progress_unreadable", path=str(path), error=str(error))  # noqa: TRY400 - the error says it all
        return []


def _explain(record: UsageRecord) -> UsageRecord:
    return msgspec.structs.replace(record, decision={**record.decision, "why": WHY})

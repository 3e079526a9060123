"""From the spool to the bus: batches with confirms, each segment deleted when all of it is confirmed."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from ias.contracts.events import USAGE_RECORDED, USAGE_TOPIC, UsageRecord
from ias.gateway.spool import (
    BATCH_RECORDS_MAX,
    SEGMENT_BYTES_MAX,
    Spool,
    SpoolDirectory,
    adopt_directories,
    measure_bytes,
    read_batches,
)
from ias.gateway.stream_progress import StreamProgress, find_interrupted, forget_interrupted
from ias.kit.bus import Publisher

_BACKOFF_FIRST_S = 0.5
_BACKOFF_LAST_S = 30.0
_ADOPT_INTERVAL_S = 5.0

log = structlog.get_logger("ias.gateway.publishing")


class SpoolPublisher:
    """Publishes what is spooled, for as long as the worker runs. The bus may be away for as long as the disk lasts."""

    def __init__(
        self,
        spool: Spool,
        publisher: Publisher,
        *,
        interval_s: float,
        progress: StreamProgress | None = None,
        settle: Callable[[UsageRecord], None] | None = None,
    ) -> None:
        """`progress` is the worker's own; `settle` is told what streams of dead workers had used, once the bus has it."""
        self._spool = spool
        self._publisher = publisher
        self._interval_s = interval_s
        self._progress = progress
        self._settle = settle
        self._task: asyncio.Task[None] | None = None
        self._adopt_after = 0.0
        self.failures = 0

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="spool-publisher")

    async def close(self, *, timeout_s: float) -> None:
        """Publish what is left, as far as the time allows; the rest is adopted by a later worker."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        with contextlib.suppress(Exception):  # the records stay on disk
            await asyncio.wait_for(self.publish_once(), timeout_s)
        with contextlib.suppress(Exception):  # nothing is lost by a connection that does not close well
            await asyncio.wait_for(self._publisher.close(), timeout_s)
        self._spool.directory.remove()

    async def _run(self) -> None:
        backoff_s = _BACKOFF_FIRST_S
        while True:
            try:
                await self.publish_once()
                backoff_s = _BACKOFF_FIRST_S
                await asyncio.sleep(self._interval_s)
            except Exception as error:  # noqa: BLE001 - whatever the bus or the disk says, the records are kept and tried again
                self.failures += 1
                log.warning("publishing_failed", error=str(error) or type(error).__name__, retry_in_s=backoff_s)
                if self._spool.segment_bytes >= SEGMENT_BYTES_MAX:
                    await self._spool.close_segment()
                await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                backoff_s = min(backoff_s * 2, _BACKOFF_LAST_S)

    async def publish_once(self) -> None:
        """Publish all that is spooled now, this worker's own and what dead ones have left."""
        self._spool.flush()
        self._spool.bytes = measure_bytes(self._spool.root)
        if self._spool.segment_bytes and not self._spool.list_closed():
            await self._spool.close_segment()
        if self._progress is not None:
            self._progress.forget_ended()
        for segment in self._spool.list_closed():
            await self._publish_segment(segment, is_own=True)
        now = time.monotonic()
        if now >= self._adopt_after:
            self._adopt_after = now + _ADOPT_INTERVAL_S
            await self._publish_left_behind()

    async def _publish_left_behind(self) -> None:
        directories = adopt_directories(self._spool.root)
        try:
            for directory in directories:
                await self._publish_interrupted(directory)
                for segment in directory.list_segments():
                    log.info("spool_adopted", segment=str(segment))
                    await self._publish_segment(segment, is_own=False)
        finally:
            for directory in directories:
                directory.remove()

    async def _publish_interrupted(self, directory: SpoolDirectory) -> None:
        """What streams had passed on whose worker was killed."""
        records = await asyncio.to_thread(find_interrupted, directory)
        for start in range(0, len(records), BATCH_RECORDS_MAX):
            some = records[start : start + BATCH_RECORDS_MAX]
            await self._publish(
                [msgspec.json.encode(record) for record in some], f"{directory.path.name}-progress-{start}"
            )
            log.info("interrupted_streams_recovered", request_ids=[record.request_id for record in some])
            for record in some:
                if self._settle is not None:
                    self._settle(record)
        forget_interrupted(directory)

    async def _publish_segment(self, segment: Path, *, is_own: bool) -> None:
        for number, (records, corrupt) in enumerate(read_batches(segment, is_own=is_own)):
            if corrupt:
                self._spool.corrupt_lines += corrupt
                log.warning("spool_lines_corrupt", segment=str(segment), lines=corrupt)
            if records:
                await self._publish(records, f"{segment.parent.name}-{segment.stem}-{number}")
        self._spool.discard(segment)

    async def _publish(self, records: list[bytes], message_id: str) -> None:
        body = b'{"schema":"%b","records":[%b]}' % (USAGE_RECORDED.encode(), b",".join(records))
        await self._publisher.publish(USAGE_TOPIC, body, message_id=message_id)
        self._spool.published += len(records)

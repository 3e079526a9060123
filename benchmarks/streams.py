"""Many slow streams at once on one worker: do events come in time, and what does a stream weigh?

    python benchmarks/streams.py [--streams 2000] [--interval-ms 50] [--events 200]

The same streams straight from the backend, through nginx and through the gateway, one after another. A stall is how much
later than the backend's interval an event came after the one before it; the row without a proxy says how much of it is the
backend's, the client's and the machine's own.
"""

import argparse
import asyncio
import json
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.bench_stack import MODEL, Stack, Target, require_programs, run_stack
from benchmarks.run import cpu_s, describe_machine, process_tree

_RAMP_S = 3.0
_PATIENCE_S = 60.0
_SAMPLE_S = 0.25
_GAPS_KEPT = 200_000


@dataclass
class Seen:
    """What the clients saw of all streams."""

    events: int = 0
    completed: int = 0
    broken: int = 0
    longest_gap_s: float = 0.0
    gaps_s: list[float] = field(default_factory=list)

    def note_gap(self, gap_s: float) -> None:
        """Time between two reads of one stream."""
        self.longest_gap_s = max(self.longest_gap_s, gap_s)
        if len(self.gaps_s) < _GAPS_KEPT:
            self.gaps_s.append(gap_s)


class StreamClient(asyncio.Protocol):
    """Asks for one stream and reads it to its end."""

    def __init__(self, request: bytes, seen: Seen) -> None:
        self.ended = asyncio.get_running_loop().create_future()
        self._request = request
        self._seen = seen
        self._last_at = 0.0
        self._tail = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        events = data.count(b"data: {")
        if events and self._last_at:
            self._seen.note_gap(now - self._last_at)
        if events:
            self._last_at = now
            self._seen.events += events
        self._tail = self._tail[-16:] + data[-32:]
        if b"[DONE]" in data or b"[DONE]" in self._tail:
            self._end(completed=True)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._end(completed=False)

    def _end(self, *, completed: bool) -> None:
        if self.ended.done():
            return
        self.ended.set_result(None)
        self._seen.completed += completed
        self._seen.broken += not completed
        self._transport.close()


def build_request(key: str) -> bytes:
    document = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "stream": True, "max_tokens": 256}
    body = json.dumps(document, separators=(",", ":")).encode()
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        b"authorization: Bearer %b\r\ncontent-length: %d\r\n\r\n%b" % (key.encode(), len(body), body)
    )


async def read_streams(url: str, key: str, streams: int, seen: Seen, lasts_s: float) -> None:
    """Open the streams over a few seconds, read all to the end."""
    loop = asyncio.get_running_loop()
    place = urlsplit(url)
    request = build_request(key)
    clients: list[StreamClient] = []
    for _ in range(streams):
        _, client = await loop.create_connection(
            lambda: StreamClient(request, seen), place.hostname or "", place.port or 80
        )
        clients.append(client)
        await asyncio.sleep(_RAMP_S / streams)
    ended = asyncio.gather(*(client.ended for client in clients))
    try:
        await asyncio.wait_for(ended, lasts_s + _PATIENCE_S)
    except TimeoutError:
        seen.broken += sum(client.ended.cancelled() for client in clients)


async def watch_memory(processes: list[psutil.Process]) -> int:
    """The most memory the processes held, until cancelled."""
    most = 0
    try:
        while True:
            most = max(most, rss_bytes(processes))
            await asyncio.sleep(_SAMPLE_S)
    except asyncio.CancelledError:
        return most


def rss_bytes(processes: list[psutil.Process]) -> int:
    return sum(process.memory_info().rss for process in processes)


async def measure(
    target: Target | None, url: str, stack: Stack, *, streams: int, events: int, interval_s: float
) -> str:
    """One row of the table."""
    seen = Seen()
    processes = process_tree(target.pid) if target is not None else []
    lasts_s = events * interval_s
    await read_streams(url, stack.key, 20, Seen(), lasts_s)  # warm up
    idle, cpu_before = rss_bytes(processes), sum(cpu_s(processes))
    watching = asyncio.create_task(watch_memory(processes))
    await read_streams(url, stack.key, streams, seen, lasts_s)
    cpu = sum(cpu_s(processes)) - cpu_before
    watching.cancel()
    most = await watching
    gaps = sorted(seen.gaps_s)
    stalls_ms = [max(0.0, gap - interval_s) * 1000 for gap in (statistics.median(gaps), gaps[len(gaps) * 99 // 100])]
    weight = f"{idle / 1e6:.0f} MB | {(most - idle) / streams / 1000:.1f} kB" if processes else "- | -"
    return (
        f"| {target.name if target is not None else 'no proxy'} | {seen.completed} | {seen.broken} | {seen.events:,} "
        f"| {stalls_ms[0]:.1f} ms | {stalls_ms[1]:.0f} ms | {max(0.0, seen.longest_gap_s - interval_s) * 1000:.0f} ms "
        f"| {weight} | {cpu / seen.events * 1e6:.1f} µs |"
    )


def allow_open_files() -> None:
    """As many as the system lets this process have: each stream is a socket here, and two in the proxy."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--interval-ms", type=int, default=50, help="between two events of a stream")
    parser.add_argument("--events", type=int, default=200, help="of each stream")
    arguments = parser.parse_args()
    require_programs()
    allow_open_files()
    print(f"{describe_machine()}\n")
    print("| server | completed | broken | events | stall p50 | p99 | longest | idle RSS | per stream | CPU/event |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    with (
        tempfile.TemporaryDirectory() as directory,
        run_stack(Path(directory), events=arguments.events, interval_ms=arguments.interval_ms) as stack,
    ):
        direct = f"http://127.0.0.1:{stack.upstream_port}/v1/chat/completions"
        for target, url in ((None, direct), (stack.nginx, stack.nginx.url), (stack.gateway, stack.gateway.url)):
            row = await measure(
                target,
                url,
                stack,
                streams=arguments.streams,
                events=arguments.events,
                interval_s=arguments.interval_ms / 1000,
            )
            print(row, flush=True)


if __name__ == "__main__":
    uvloop.run(main())

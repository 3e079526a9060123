"""Mixed load for minutes on one worker: does its memory stay where it is?

    python benchmarks/soak.py [--minutes 10] [--clients 16]

Each client goes on making one of these at random: an answer, a stream, a stream left in the middle, an answer not waited for,
a backend that is not there, an unknown model, a wrong key, a broken body, broken HTTP, a head that is too large.
"""

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.bench_stack import BROKEN_MODEL, MODEL, require_programs, run_stack
from benchmarks.run import describe_machine

_PAUSE_S = 0.005
_SAMPLE_S = 1.0
_TIMEOUT_S = 30.0
_PROMPT = "Which rivers flow through the oldest towns of the country? "


class Client:
    """One client after another on the same place."""

    def __init__(self, url: str, key: str, seen: Counter[str]) -> None:
        place = urlsplit(url)
        self._host, self._port = place.hostname or "", place.port or 80
        self._key = key
        self._seen = seen
        self._acts: list[tuple[int, Callable[[], Awaitable[str]]]] = [
            (40, lambda: self._answer(self._request())),
            (25, lambda: self._answer(self._request(stream=True))),
            (8, self._leave_stream),
            (8, self._leave_early),
            (4, lambda: self._answer(self._request(model=BROKEN_MODEL))),
            (4, lambda: self._answer(self._request(model=f"unknown-{random.random()}"))),
            (4, lambda: self._answer(self._request(key=f"ias-sk-{random.random()}"))),
            (3, lambda: self._answer(self._request(body=b'{"model":'))),
            (2, lambda: self._answer(b"GARBAGE\r\n\r\n")),
            (2, lambda: self._answer(self._request(padding=100_000))),
        ]

    async def run(self, until: float) -> None:
        """Go on until that moment of the loop's clock."""
        weights = [weight for weight, _ in self._acts]
        while asyncio.get_running_loop().time() < until:
            ((_, act),) = random.choices(self._acts, weights)
            try:
                self._seen[await asyncio.wait_for(act(), _TIMEOUT_S)] += 1
            except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                self._seen[type(error).__name__] += 1
            await asyncio.sleep(_PAUSE_S)

    def _request(
        self, *, stream: bool = False, model: str = MODEL, key: str | None = None, body: bytes = b"", padding: int = 0
    ) -> bytes:
        content = _PROMPT * random.randint(1, 40)
        document = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 64}
        body = body or json.dumps({**document, "stream": stream}, separators=(",", ":")).encode()
        more = b"x-padding: %b\r\n" % (b"x" * padding) if padding else b""
        return (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: soak\r\ncontent-type: application/json\r\nconnection: close\r\n"
            b"authorization: Bearer %b\r\n%bcontent-length: %d\r\n\r\n%b"
            % ((key or self._key).encode(), more, len(body), body)
        )

    async def _open(self, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        writer.write(request)
        return reader, writer

    async def _answer(self, request: bytes) -> str:
        reader, writer = await self._open(request)
        with contextlib.closing(writer):
            status = (await reader.readline()).split(b" ")[1:2]
            await reader.read()
        return status[0].decode() if status else "no answer"

    async def _leave_stream(self) -> str:
        reader, writer = await self._open(self._request(stream=True))
        await reader.readuntil(b"data: ")
        writer.transport.abort()
        return "left a stream"

    async def _leave_early(self) -> str:
        _, writer = await self._open(self._request())
        await asyncio.sleep(random.random() * 0.01)
        writer.transport.abort()
        return "left early"


async def sample(process: psutil.Process, until: float) -> list[tuple[float, float]]:
    """Seconds since the start and resident megabytes, now and then."""
    loop = asyncio.get_running_loop()
    started, samples = time.monotonic(), []
    while loop.time() < until:
        samples.append((time.monotonic() - started, process.memory_info().rss / 1e6))
        await asyncio.sleep(_SAMPLE_S)
    return samples


def describe(samples: list[tuple[float, float]], seen: Counter[str]) -> str:
    """A row a minute, and how memory went over the second half."""
    rows = ["| minute | RSS median | most |", "|---|---|---|"]
    for minute in range(int(samples[-1][0] // 60) + 1):
        values = [rss for at, rss in samples if at // 60 == minute]
        rows.append(f"| {minute + 1} | {statistics.median(values):.1f} MB | {max(values):.1f} MB |")
    half = [(at, rss) for at, rss in samples if at >= samples[-1][0] / 2]
    slope = statistics.linear_regression(*zip(*half, strict=True)).slope
    total = sum(seen.values())
    outcomes = ", ".join(f"{name}: {count:,}" for name, count in seen.most_common())
    rows += ["", f"{total:,} requests ({outcomes})"]
    rows.append(
        f"second half: {slope * 60_000:+.1f} kB a minute, {slope * samples[-1][0] / total * 1e6:+.2f} bytes a request"
    )
    return "\n".join(rows)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=16)
    arguments = parser.parse_args()
    require_programs()
    print(f"{describe_machine()}\n")
    with tempfile.TemporaryDirectory() as directory, run_stack(Path(directory)) as stack:
        until = asyncio.get_running_loop().time() + arguments.minutes * 60
        seen: Counter[str] = Counter()
        sampling = asyncio.create_task(sample(psutil.Process(stack.gateway.pid), until))
        clients = (Client(stack.gateway.url, stack.key, seen) for _ in range(arguments.clients))
        await asyncio.gather(*(client.run(until) for client in clients))
        print(describe(await sampling, seen))


if __name__ == "__main__":
    uvloop.run(main())

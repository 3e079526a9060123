"""How soon every gateway worker knows of a change of the routes: the whole platform, a model disabled and enabled again and again.

python benchmarks/route_changes.py [--workers 4] [--changes 60] [--connections 24]

`GET /v1/models` is asked over many connections, which the kernel spreads over the workers, without a pause. A change is one
`PATCH /registry/v1/models/{id}`; its effect counts from when that request is *sent* to the last answer, over any connection, that
does not know of it.
"""

import argparse
import asyncio
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parents[1]))  # started as a script, its own folder is what Python knows

from benchmarks.own_platform import run_platform
from benchmarks.revocation import REQUEST_TIMEOUT_S, sign_in

KNOWN_FOR_S = 0.5
"""A change is known when every connection has said so for this long: no worker goes back."""


@dataclass
class Seen:
    """What one connection was told last."""

    is_listed: bool = True
    since: float = 0.0
    """When it was first told so."""


async def probe(url: str, connection: dict[str, Any], seen: Seen, stop: asyncio.Event) -> int:
    """Ask over one connection, until told to stop; how many answers there were."""
    limits = httpx.Limits(max_connections=1, max_keepalive_connections=1)
    headers = {"authorization": f"Bearer {connection['api_key']}"}
    answers = 0
    async with httpx.AsyncClient(base_url=url, limits=limits, headers=headers, timeout=REQUEST_TIMEOUT_S) as client:
        while not stop.is_set():
            answer = await client.get("/v1/models")
            answer.raise_for_status()
            is_listed, now = any(one["id"] == connection["model"] for one in answer.json()["data"]), time.monotonic()
            if is_listed != seen.is_listed:
                seen.is_listed, seen.since = is_listed, now
            answers += 1
    return answers


async def change(
    management: httpx.AsyncClient, model_id: str, probes: list[Seen], *, is_listed: bool
) -> tuple[float, float]:
    """How long the request took, and how long until the last connection knew of it."""
    asked_at = time.monotonic()
    answer = await management.patch(
        f"/registry/v1/models/{model_id}", json={"status": "enabled" if is_listed else "disabled"}
    )
    answer.raise_for_status()
    answered_at = time.monotonic()
    while True:
        known_at = max(one.since for one in probes)
        if all(one.is_listed == is_listed for one in probes) and time.monotonic() - known_at >= KNOWN_FOR_S:
            return answered_at - asked_at, known_at - asked_at
        await asyncio.sleep(0.01)


async def measure(
    connection: dict[str, Any], *, changes: int, connections: int
) -> tuple[list[tuple[float, float]], int]:
    """The changes' times, and how many answers were looked at."""
    stop, probes = asyncio.Event(), [Seen() for _ in range(connections)]
    async with httpx.AsyncClient(base_url=connection["management_url"], timeout=REQUEST_TIMEOUT_S) as management:
        await sign_in(management, connection)
        listed = await management.get("/registry/v1/models", params={"name": connection["model"]})
        model_id = listed.json()["data"][0]["id"]
        tasks = [asyncio.create_task(probe(connection["gateway_url"], connection, seen, stop)) for seen in probes]
        took = []
        for number in range(changes):
            await asyncio.sleep(random.uniform(0, 0.1))
            took.append(await change(management, model_id, probes, is_listed=bool(number % 2)))
        stop.set()
        return took, sum(await asyncio.gather(*tasks))


def report(took: list[tuple[float, float]], *, workers: int, answers: int) -> str:
    """Lines of Markdown."""
    writes, effects = (sorted(one[index] * 1000 for one in took) for index in (0, 1))
    middle = len(took) // 2
    return "\n".join(
        [
            f"{len(took)} changes, {workers} gateway workers, {answers} answers meanwhile",
            "",
            "| | median | slowest |",
            "|---|---|---|",
            f"| the request that changes | {writes[middle]:.0f} ms | {writes[-1]:.0f} ms |",
            f"| until every worker knows, from when that was sent | {effects[middle]:.0f} ms | {effects[-1]:.0f} ms |",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=4, help="of the gateway")
    parser.add_argument("--changes", type=int, default=60)
    parser.add_argument("--connections", type=int, default=24, help="that ask, spread over the workers by the kernel")
    options = parser.parse_args()
    with run_platform("--workers", str(options.workers)) as connection:
        took, answers = asyncio.run(measure(connection, changes=options.changes, connections=options.connections))
    print(report(took, workers=options.workers, answers=answers))


if __name__ == "__main__":
    main()

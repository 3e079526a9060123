"""How soon a revoked key is refused by every gateway worker: the whole platform, under load, keys revoked one after the other.

python benchmarks/revocation.py [--workers 4] [--revocations 100] [--connections 24]

Each key is probed over many connections, which the kernel spreads over the workers, without a pause. A revocation is one
`DELETE /identity/v1/api-keys/{id}`; its effect counts from when that request is *sent* to when the last connection has had its
last success with the key. Probing goes on to the end: a key that works again was revived by a read that raced its revocation.
"""

import argparse
import asyncio
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parents[1]))  # started as a script, its own folder is what Python knows

from benchmarks.own_platform import run_platform

REQUEST_TIMEOUT_S = 20.0
SETTLE_S = 3.0
"""How long keys are probed on after the last revocation: longer than any read that could revive one."""


@dataclass
class Key:
    """A key under test, and what is seen of it."""

    id: str
    text: str
    asked_at: float = float("inf")
    answered_at: float = float("inf")
    last_success_at: float = 0.0
    revived: int = 0
    refused_by: set[int] = field(default_factory=set)
    taken_by: set[int] = field(default_factory=set)

    def take(self, probe: int, status: int, answered_at: float) -> None:
        """One probe's answer. A success after the same probe was refused is a revival: one connection has one worker."""
        if status == 200:
            self.last_success_at = max(self.last_success_at, answered_at)
            self.revived += probe in self.refused_by
            self.taken_by.add(probe)
        elif status == 401:
            self.refused_by.add(probe)

    @property
    def effect_s(self) -> float:
        """From the request to revoke to the last success."""
        return max(0.0, self.last_success_at - self.asked_at)


async def sign_in(client: httpx.AsyncClient, connection: dict[str, Any]) -> None:
    answer = await client.post("/identity/v1/sessions", json=connection["admin"])
    answer.raise_for_status()
    client.headers["authorization"] = f"Bearer {answer.json()['access_token']}"


async def issue_keys(client: httpx.AsyncClient, connection: dict[str, Any], count: int) -> list[Key]:
    keys = []
    for number in range(count):
        path = f"/identity/v1/projects/{connection['project_id']}/api-keys"
        answer = await client.post(path, json={"name": f"revocation {number}"})
        answer.raise_for_status()
        issued = answer.json()
        keys.append(Key(issued["id"], issued["key"]))
    return keys


async def probe(number: int, url: str, watched: list[Key], stop: asyncio.Event) -> int:
    """Ask with one key after the other over one connection, until told to stop; how many answers there were."""
    limits = httpx.Limits(max_connections=1, max_keepalive_connections=1)
    answers = 0
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=REQUEST_TIMEOUT_S) as client:
        while not stop.is_set():
            for key in list(watched):
                answer = await client.get("/v1/models", headers={"authorization": f"Bearer {key.text}"})
                key.take(number, answer.status_code, time.monotonic())
                answers += 1
    return answers


async def generate_load(url: str, connection: dict[str, Any], stop: asyncio.Event) -> int:
    """Chat completions, one after the other, with a key that stays; how many."""
    body = {"model": connection["model"], "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    headers = {"authorization": f"Bearer {connection['api_key']}"}
    served = 0
    async with httpx.AsyncClient(base_url=url, timeout=REQUEST_TIMEOUT_S, headers=headers) as client:
        while not stop.is_set():
            answer = await client.post("/v1/chat/completions", json=body)
            served += answer.status_code == 200
    return served


async def measure(connection: dict[str, Any], *, revocations: int, connections: int) -> tuple[list[Key], int, int]:
    """The keys with what was seen of them, and how many probes and completions were answered."""
    url, stop = connection["gateway_url"], asyncio.Event()
    async with httpx.AsyncClient(base_url=connection["management_url"], timeout=REQUEST_TIMEOUT_S) as management:
        await sign_in(management, connection)
        keys = await issue_keys(management, connection, revocations)
        random.shuffle(keys)
        watched: list[Key] = []
        probes = [asyncio.create_task(probe(number, url, watched, stop)) for number in range(connections)]
        load = [asyncio.create_task(generate_load(url, connection, stop)) for _ in range(4)]
        for key in keys:
            # Until every probe has refused the last key and taken this one; all are looked at again in the end.
            watched[:] = [*(one for one in watched if len(one.refused_by) < connections), key]
            while len(key.taken_by) < connections:  # noqa: ASYNC110 - what is waited for is seen by polling probes
                await asyncio.sleep(0.01)
            await asyncio.sleep(random.uniform(0, 0.1))
            key.asked_at = time.monotonic()
            answer = await management.delete(f"/identity/v1/api-keys/{key.id}")
            answer.raise_for_status()
            key.answered_at = time.monotonic()
        watched[:] = keys
        await asyncio.sleep(SETTLE_S)
        stop.set()
        return keys, sum(await asyncio.gather(*probes)), sum(await asyncio.gather(*load))


def report(keys: list[Key], *, workers: int, probes: int, completions: int) -> str:
    """Lines of Markdown."""
    effects = sorted(key.effect_s * 1000 for key in keys)
    writes = sorted((key.answered_at - key.asked_at) * 1000 for key in keys)
    middle = len(keys) // 2
    unseen = sum(not key.last_success_at or not key.refused_by for key in keys)
    revived = sum(bool(key.revived) for key in keys)
    return "\n".join(
        [
            f"{len(keys)} revocations, {workers} gateway workers, {probes} probes and {completions} completions meanwhile",
            "",
            "| | median | slowest |",
            "|---|---|---|",
            f"| the request that revokes | {writes[middle]:.0f} ms | {writes[-1]:.0f} ms |",
            f"| until no worker takes the key, from when that was sent | {effects[middle]:.0f} ms | {effects[-1]:.0f} ms |",
            "",
            f"keys never seen to work or never refused: {unseen}; keys that worked again: {revived}",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=4, help="of the gateway")
    parser.add_argument("--revocations", type=int, default=100)
    parser.add_argument("--connections", type=int, default=24, help="that probe, spread over the workers by the kernel")
    options = parser.parse_args()
    with run_platform("--workers", str(options.workers)) as connection:
        measured = measure(connection, revocations=options.revocations, connections=options.connections)
        keys, probes, completions = asyncio.run(measured)
    print(report(keys, workers=options.workers, probes=probes, completions=completions))
    if any(key.revived or not key.refused_by for key in keys):
        sys.exit("A revoked key was taken.")


if __name__ == "__main__":
    main()

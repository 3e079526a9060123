"""How long management reads and writes take with 50 clients at once: a whole platform (`ias up`), real HTTP, a mix of work.

python benchmarks/management.py [--clients 50] [--seconds 30] [--orgs 10] [--pause-s 0]

Each client is a user of their own (an `admin` of one of several orgs), signed in, with one connection. It sends the next request
when the last one is answered: by default at once, so that the management process never rests; `--pause-s` lets clients wait between
requests, as people and scripts do. Four in five requests read. All five services are one process under `ias up`; deployed one
by one they have a process each, and a core each where there are so many. Signing in is not measured: how long that takes is set
by bcrypt's cost, on purpose (the clients' accounts are made with the lowest).
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))  # started as a script, its own folder is what Python knows

from benchmarks.own_platform import run_platform

PASSWORD = "a password of their own"  # noqa: S105  # of users who live as long as the measurement
REQUEST_TIMEOUT_S = 30.0
WARM_UP_S = 3.0
READS_PER_WRITE = 4


class Connection:
    """One keep-alive connection. httpx would take more CPU for a request than the services do, on the same cores."""

    def __init__(self, url: str) -> None:
        self._host, self._port = urlsplit(url).hostname or "", urlsplit(url).port or 80
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.token = ""

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON of the answer."""
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            if self._streams is None or self._streams[0].at_eof():  # the server ends connections that rest
                self._streams = await asyncio.open_connection(self._host, self._port)
            reader, writer = self._streams
            content = json.dumps(body).encode() if body is not None else b""
            head = [f"{method} {path} HTTP/1.1", "Host: management", f"Content-Length: {len(content)}"]
            head += [f"Authorization: Bearer {self.token}"] if self.token else []
            head += ["Content-Type: application/json"] if content else []
            writer.write("\r\n".join([*head, "", ""]).encode() + content)
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
            answer = await reader.readexactly(int(headers.get("content-length", 0)))
            return int(lines[0].split()[1]), json.loads(answer) if answer else None

    async def ok(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of an answer that must be a success."""
        status, answer = await self.ask(method, path, body)
        if status >= 300:
            sys.exit(f"{method} {path}: {status} {answer}")
        return answer

    async def close(self) -> None:
        if self._streams:
            self._streams[1].close()
            with contextlib.suppress(OSError):
                await self._streams[1].wait_closed()
            self._streams = None


@dataclass
class Client:
    """A user at work."""

    connection: Connection
    org_id: str
    project_id: str
    budget_id: str
    keys: list[str] = field(default_factory=list)

    async def read(self) -> tuple[str, int]:
        """One read; what it was and its status."""
        org, project = f"/identity/v1/orgs/{self.org_id}", f"/identity/v1/projects/{self.project_id}"
        reads = {
            "list keys": f"{project}/api-keys?limit=20",
            "get a key": f"/identity/v1/api-keys/{random.choice(self.keys)}",
            "get an org": org,
            "list members": f"{org}/members",
            "list projects": f"{org}/projects",
            "who am I": "/identity/v1/me",
            "audit log": f"{org}/audit-log?limit=20",
            "list budgets": f"/billing/v1/budgets?org_id={self.org_id}",
            "get a budget": f"/billing/v1/budgets/{self.budget_id}",
            "ledger": f"/billing/v1/ledger?org_id={self.org_id}",
            "list models": "/registry/v1/models",
            "usage": f"/analytics/v1/usage?org_id={self.org_id}",
        }
        name = random.choice(list(reads))
        status, _ = await self.connection.ask("GET", reads[name])
        return name, status

    async def write(self) -> tuple[str, int]:
        """One write; what it was and its status. Keys do not pile up."""
        works: list[tuple[str, Callable[[], Awaitable[int]]]] = [
            ("create a key", self.create_key),
            ("change a key", self.change_key),
            ("change a budget", self.change_budget),
        ]
        name, work = ("revoke a key", self.revoke_key) if len(self.keys) > 5 else random.choice(works)
        return name, await work()

    async def create_key(self) -> int:
        path = f"/identity/v1/projects/{self.project_id}/api-keys"
        status, answer = await self.connection.ask("POST", path, {"name": "measured"})
        if status == 201:
            self.keys.append(answer["id"])
        return status

    async def change_key(self) -> int:
        change = {"name": f"measured {random.randrange(10**6)}"}
        status, _ = await self.connection.ask("PATCH", f"/identity/v1/api-keys/{random.choice(self.keys)}", change)
        return status

    async def revoke_key(self) -> int:
        status, _ = await self.connection.ask("DELETE", f"/identity/v1/api-keys/{self.keys.pop()}")
        return status

    async def change_budget(self) -> int:
        change = {"limit_usd": str(random.randint(10, 1000))}
        status, _ = await self.connection.ask("PATCH", f"/billing/v1/budgets/{self.budget_id}", change)
        return status


@dataclass
class Measured:
    """Seconds that answers took, by what was asked; and what was no success."""

    reads: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    writes: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    failures: dict[str, int] = field(default_factory=lambda: defaultdict(int))


async def prepare(connection: dict[str, Any], clients: int, orgs: int) -> list[Client]:
    """Orgs with users, a budget and a few keys each."""
    url, admin = connection["management_url"], Connection(connection["management_url"])
    admin.token = (await admin.ok("POST", "/identity/v1/sessions", connection["admin"]))["access_token"]
    places = []
    for number in range(orgs):
        org_id = (await admin.ok("POST", "/identity/v1/orgs", {"name": f"org {number}"}))["id"]
        [project] = (await admin.ok("GET", f"/identity/v1/orgs/{org_id}/projects"))["data"]
        places.append((org_id, project["id"]))
    made = []
    for number in range(clients):
        org_id, project_id = places[number % orgs]
        user = {"email": f"user-{number}@example.com", "password": PASSWORD}
        await admin.ok("POST", f"/identity/v1/orgs/{org_id}/members", {**user, "role": "admin"})
        own = Connection(url)
        own.token = (await own.ok("POST", "/identity/v1/sessions", user))["access_token"]
        scope = {"kind": "project", "id": project_id}
        budget = {"org_id": org_id, "scope": scope, "window": "month", "limit_usd": str(10 + number), "mode": "soft"}
        budget_id = (await own.ok("POST", "/billing/v1/budgets", budget))["id"]
        client = Client(own, org_id, project_id, budget_id)
        for _ in range(3):
            await client.create_key()
        made.append(client)
    await admin.close()
    return made


async def work(client: Client, measured: Measured, *, begin: float, end: float, pause_s: float) -> None:
    """Ask until the end; what is answered before the beginning warms up."""
    await asyncio.sleep(random.uniform(0, pause_s))
    while (asked_at := time.monotonic()) < end:
        is_write = random.randrange(READS_PER_WRITE + 1) == 0
        try:
            name, status = await (client.write() if is_write else client.read())
        except asyncio.IncompleteReadError:
            # The server ended the connection just as it was used again: no answer, and no figure.
            continue
        answered_at = time.monotonic()
        if asked_at >= begin:
            (measured.writes if is_write else measured.reads)[name].append(answered_at - asked_at)
            if status >= 300:
                measured.failures[f"{name}: {status}"] += 1
        if pause_s:
            await asyncio.sleep(random.uniform(0, 2 * pause_s))


async def measure(connection: dict[str, Any], options: argparse.Namespace) -> Measured:
    clients = await prepare(connection, options.clients, options.orgs)
    measured = Measured()
    begin = time.monotonic() + WARM_UP_S
    await asyncio.gather(
        *(
            work(client, measured, begin=begin, end=begin + options.seconds, pause_s=options.pause_s)
            for client in clients
        )
    )
    for client in clients:
        await client.connection.close()
    return measured


def report(measured: Measured, options: argparse.Namespace) -> str:
    """Lines of Markdown."""

    def row(name: str, seconds: list[float]) -> str:
        ordered = sorted(seconds)
        at = [1000 * ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.5, 0.99)]
        return f"| {name} | {len(ordered)} | {at[0]:.0f} ms | {at[1]:.0f} ms | {1000 * ordered[-1]:.0f} ms |"

    reads = [second for found in measured.reads.values() for second in found]
    writes = [second for found in measured.writes.values() for second in found]
    pace = f"a pause of {options.pause_s} s on average" if options.pause_s else "without a pause"
    lines = [
        f"{options.clients} clients {pace}, {options.orgs} orgs: {(len(reads) + len(writes)) / options.seconds:.0f} requests/s",
        "",
        "| | requests | p50 | p99 | slowest |",
        "|---|---|---|---|---|",
        row("**reads**", reads),
        row("**writes**", writes),
    ]
    if options.each:
        lines += [
            row(name, found) for kind in (measured.reads, measured.writes) for name, found in sorted(kind.items())
        ]
    lines += ["", f"failures: {dict(measured.failures) or 'none'}"]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--orgs", type=int, default=10, help="that the clients belong to")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--pause-s", type=float, default=0.0, help="that a client waits between requests, on average")
    parser.add_argument("--each", action="store_true", help="a line for each kind of request")
    options = parser.parse_args()
    # Every client is behind one address here, and none is elsewhere: limits by user stay on as they are.
    environment = {"IAS_RATE_LIMIT_ADDRESS_PER_MINUTE": "10000000", "IAS_IDENTITY_BCRYPT_ROUNDS": "4"}
    with run_platform(environment=environment) as connection:
        measured = uvloop.run(measure(connection, options))
    print(
        f"{os.cpu_count()} cores; a load of {os.getloadavg()[0]:.1f} after the run",
        "",
        report(measured, options),
        sep="\n",
    )
    if measured.failures:
        sys.exit("Not every request succeeded.")


if __name__ == "__main__":
    main()

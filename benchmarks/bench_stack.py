"""What is measured and what it needs: Redis, the backend, nginx and one gateway worker, on free ports."""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import redis

from ias.contracts import redis_keys
from ias.contracts.api_keys import KeyRecord, TenantRecord, digest_key, generate_key
from ias.contracts.routes import Backend, ModelRoute, RouteTable
from ias.contracts.spending import Budget, Price, PriceTable, SpendingPolicy
from ias.gateway.compiled import find_compiled

HERE = Path(__file__).parent
ROOT = HERE.parent
MODEL = "m"
BROKEN_MODEL = "broken"
"""A model whose only backend is not there."""
_START_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Target:
    """A server under load: its root process's id, the URL, and headers that it wants beside those of any request."""

    name: str
    pid: int
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    seconds_min: int = 0
    """A round's least length, for a server so slow that few requests would be served in less."""


@dataclass(frozen=True)
class Stack:
    """Everything that runs."""

    key: str
    nginx: Target
    gateway: Target
    redis_pid: int
    redis_url: str
    upstream_port: int


def require_programs() -> None:
    """Exit with a sentence when a program is missing."""
    missing = [name for name in ("nginx", "wrk", "redis-server") if shutil.which(name) is None]
    if missing:
        sys.exit(f"The benchmark needs {', '.join(missing)} (on Debian: apt-get install nginx wrk redis-server).")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(*command: str, cwd: Path, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process for as long as the context lasts; what it says goes to a file beside it."""
    with (cwd / f"{Path(command[0]).name}-{time.monotonic_ns()}.log").open("wb") as output:
        started = subprocess.Popen(command, cwd=cwd, env=env, stdout=output, stderr=output)
        try:
            yield started
        finally:
            started.terminate()
            try:
                started.wait(20)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                sys.exit(f"Nothing listens on port {port}.")
            time.sleep(0.05)
        else:
            return


def wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310 - loopback
                json.load(answer)
                return
        except OSError:
            if time.monotonic() > deadline:
                sys.exit("The gateway does not become ready.")
            time.sleep(0.1)


def answers(url: str, *, key: str, headers: dict[str, str], timeout_s: float) -> bool:
    """Whether a server comes to answer a chat request with success."""
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}).encode()
    sent = {"content-type": "application/json", "authorization": f"Bearer {key}", **headers}
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, sent), timeout=10) as answer:  # noqa: S310 - loopback
                return "choices" in json.load(answer)
        except (OSError, ValueError):
            time.sleep(0.2)
    return False


def push_documents(redis_url: str, upstream_ports: list[int], key: str) -> None:
    """What the management services would have pushed: one org, project and key, one model, its price, three budgets."""
    client = redis.Redis.from_url(redis_url)

    def put(name: str, document: msgspec.Struct) -> None:
        client.set(name, msgspec.json.encode(document))

    ports = {MODEL: upstream_ports, BROKEN_MODEL: [9]}
    put(redis_keys.org("org"), TenantRecord(version=1, id="org"))
    put(redis_keys.project("project"), TenantRecord(version=1, id="project"))
    put(
        redis_keys.api_key(digest_key(key)),
        KeyRecord(version=1, key_id="key", org_id="org", project_id="project", user_id="user", models=tuple(ports)),
    )
    routes = {
        name: ModelRoute(
            model_id=name,
            name=name,
            created=1700000000,
            context_length=8192,
            backends=tuple(
                Backend(id=f"backend-{name}-{port}", url=f"http://127.0.0.1:{port}/v1", upstream_model=name)
                for port in served_at
            ),
        )
        for name, served_at in ports.items()
    }
    put(redis_keys.ROUTES, RouteTable(version=1, models=routes))
    price = Price(
        id="price",
        version=1,
        model=MODEL,
        effective_at=0,
        input_nano_usd_per_million=150_000_000,
        cached_input_nano_usd_per_million=75_000_000,
        output_nano_usd_per_million=600_000_000,
    )
    put(redis_keys.PRICES, PriceTable(version=1, prices=dict.fromkeys(ports, (price,))))
    budget = Budget(
        id="budget", scope_kind="org", scope_id="org", window="month", limit_nano_usd=8_000_000 * 10**9, mode="hard"
    )
    put(redis_keys.spending_policy("org"), SpendingPolicy(version=1, org_id="org", budgets=(budget,)))
    client.set(redis_keys.COUNTERS_READY, "1")
    client.close()


def find_build() -> Path | None:
    """The compiled build that the gateway runs, unless IAS_GATEWAY_COMPILED=false or nothing was compiled."""
    return find_compiled() if os.environ.get("IAS_GATEWAY_COMPILED", "true") == "true" else None


def gateway_environment(redis_url: str, directory: Path) -> dict[str, str]:
    compiled = find_build()
    return {
        **os.environ,
        **({} if compiled is None else {"PYTHONPATH": str(compiled)}),
        "IAS_REDIS_URL": redis_url,
        "IAS_BUS_URL": redis_url.removesuffix("/0") + "/1",
        "IAS_SECRET_KEY": base64.b64encode(os.urandom(32)).decode(),
        "IAS_GATEWAY_RUN_DIR": str(directory / "run"),
        "IAS_GATEWAY_SPOOL_DIR": str(directory / "spool"),
        "IAS_GATEWAY_BACKEND_CONNECTIONS_MAX": "8192",
        "IAS_GATEWAY_ALLOW_LOOPBACK": "true",
    }


@contextmanager
def run_stack(
    directory: Path, *, events: int = 64, interval_ms: int = 0, gateway: list[str] | None = None, backends: int = 1
) -> Iterator[Stack]:
    """Everything, ready for load; `events` and their interval are the backend's, `gateway` the worker's command.

    Several `backends` are one process at as many ports: nginx takes them in turn, the gateway chooses.
    """
    redis_port, nginx_port, gateway_port, *upstream_ports = (free_port() for _ in range(3 + backends))
    redis_url = f"redis://127.0.0.1:{redis_port}/0"
    key = generate_key()
    with ExitStack() as stack:
        redis_server = stack.enter_context(
            process("redis-server", "--port", str(redis_port), "--save", "", "--appendonly", "no", cwd=directory)
        )
        upstream = (str(HERE / "upstream.py"), ",".join(map(str, upstream_ports)), str(events), str(interval_ms))
        stack.enter_context(process(sys.executable, *upstream, cwd=directory))
        configuration = (HERE / "nginx.conf.template").read_text()
        servers = " ".join(f"server 127.0.0.1:{port};" for port in upstream_ports)
        configuration = configuration.replace("@PORT@", str(nginx_port)).replace("@BACKENDS@", servers)
        (directory / "nginx.conf").write_text(configuration)
        nginx = stack.enter_context(
            process("nginx", "-p", str(directory), "-c", str(directory / "nginx.conf"), cwd=directory)
        )
        for port in (redis_port, *upstream_ports, nginx_port):
            wait_for_port(port)
        push_documents(redis_url, upstream_ports, key)
        command = gateway or [sys.executable, "-m", "ias.gateway.worker"]
        worker = stack.enter_context(
            process(*command, "0", str(gateway_port), cwd=directory, env=gateway_environment(redis_url, directory))
        )
        wait_for_port(gateway_port)
        wait_until_ready(f"http://127.0.0.1:{gateway_port}/ready")
        path = "/v1/chat/completions"
        yield Stack(
            key=key,
            nginx=Target("nginx proxy_pass", nginx.pid, f"http://127.0.0.1:{nginx_port}{path}"),
            gateway=Target("IAS gateway", worker.pid, f"http://127.0.0.1:{gateway_port}{path}"),
            redis_pid=redis_server.pid,
            redis_url=redis_url,
            upstream_port=upstream_ports[0],
        )

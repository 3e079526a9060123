"""The data plane as processes: an engine, gateway workers, billing and its consumers. Each can be killed and started again.

Of the management services only billing runs: what identity and registry would push to Redis, `push_documents` writes. Routes of
billing are called with tokens that the proof itself has signed, and whose keys it publishes in identity's place.
"""

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import psutil
from redis.asyncio import Redis

from ias.contracts import redis_keys
from ias.contracts.api_keys import KeyRecord, TenantRecord, digest_key, generate_key
from ias.contracts.routes import Backend, ModelRoute, RouteTable
from tests.kit.token_issuer import TokenIssuer
from tests.servers.launch import free_port

MODEL = "sim"
_IAS = (sys.executable, "-c", "from ias.cli.main import main; main()")
_START_TIMEOUT_S = 60.0


@dataclass
class Program:
    """One process of the platform, on a port of its own; what it says goes to a file."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    directory: Path
    port: int
    path: str = "/ready"
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.directory / f"{self.name}.log"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env={**os.environ, **self.environment}, stdout=log, stderr=log, cwd=self.directory
            )

    async def until_ready(self) -> None:
        async with asyncio.timeout(_START_TIMEOUT_S), httpx.AsyncClient(trust_env=False) as http:
            while True:
                if self.process is None or self.process.poll() is not None:
                    raise AssertionError(f"{self.name} ended:\n{self.log.read_text()[-2000:]}")
                try:
                    if (await http.get(self.url + self.path, timeout=2)).status_code == 200:
                        return
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.05)

    def kill(self) -> None:
        """kill -9, of its workers too."""
        if self.process is not None:
            for child in psutil.Process(self.process.pid).children(recursive=True):
                _kill(child.pid)
            self.process.kill()
            self.process.wait()

    def kill_worker(self) -> bool:
        """kill -9 one of its workers, which it starts again itself; False where it has none just now."""
        workers = psutil.Process(self.process.pid).children() if self.process else []
        return bool(workers) and _kill(workers[0].pid)

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


@dataclass(frozen=True)
class Tenant:
    """An org with one project and key."""

    org_id: str = field(default_factory=lambda: str(uuid4()))
    project_id: str = field(default_factory=lambda: str(uuid4()))
    key_id: str = field(default_factory=lambda: str(uuid4()))
    user_id: str = field(default_factory=lambda: str(uuid4()))
    key: str = field(default_factory=generate_key)


@dataclass
class Platform:
    """What runs."""

    redis_url: str
    engine: Program
    gateway: Program
    billing: Program
    consumers: list[Program]
    databases: Mapping[str, str]
    admin: httpx.AsyncClient
    """A platform admin's, of billing."""
    tenants: list[Tenant]
    backend_id: str = field(default_factory=lambda: str(uuid4()))

    @property
    def programs(self) -> list[Program]:
        return [self.engine, self.gateway, self.billing, *self.consumers]

    async def push_documents(self) -> None:
        """What identity and registry tell the gateways."""
        async with Redis.from_url(self.redis_url) as redis:
            documents: dict[str, msgspec.Struct] = {}
            for tenant in self.tenants:
                documents[redis_keys.org(tenant.org_id)] = TenantRecord(version=1, id=tenant.org_id)
                documents[redis_keys.project(tenant.project_id)] = TenantRecord(version=1, id=tenant.project_id)
                documents[redis_keys.api_key(digest_key(tenant.key))] = KeyRecord(
                    version=1,
                    key_id=tenant.key_id,
                    org_id=tenant.org_id,
                    project_id=tenant.project_id,
                    user_id=tenant.user_id,
                )
            backend = Backend(
                id=self.backend_id,
                url=f"{self.engine.url}/v1",
                upstream_model=MODEL,
                vllm_extensions=True,
                continuous_usage=True,
            )
            route = ModelRoute(model_id=MODEL, name=MODEL, created=1, context_length=8192, backends=(backend,))
            documents[redis_keys.ROUTES] = RouteTable(version=1, models={MODEL: route})
            await redis.mset({name: msgspec.json.encode(document) for name, document in documents.items()})

    async def create_price(self, *, input_usd: str, output_usd: str) -> None:
        """What the model costs, in USD per million tokens; cached input is half of input."""
        cached = format(float(input_usd) / 2, ".6f")
        body = {"model": MODEL, "input_usd_per_million": input_usd, "output_usd_per_million": output_usd}
        await self._create("prices", {**body, "cached_input_usd_per_million": cached})

    async def create_budget(self, tenant: Tenant, *, limit_usd: str, mode: str, window: str = "total") -> str:
        """A budget of the tenant's org; its id."""
        scope = {"kind": "org", "id": tenant.org_id}
        body = {"org_id": tenant.org_id, "scope": scope, "window": window, "limit_usd": limit_usd, "mode": mode}
        return str((await self._create("budgets", body))["id"])

    async def _create(self, what: str, body: Mapping[str, Any]) -> Any:
        answer = await self.admin.post(f"/billing/v1/{what}", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()


@asynccontextmanager
async def run_platform(
    directory: Path,
    *,
    redis_url: str,
    bus_url: str,
    databases: Mapping[str, str],
    tenants: list[Tenant],
    workers: int = 2,
    consumers: int = 1,
    engine_options: tuple[str, ...] = (),
    **settings: str,
) -> AsyncIterator[Platform]:
    """Everything, ready for requests, on migrated databases. `settings` are the processes' environment, beside what they need."""
    issuer = TokenIssuer()
    async with AsyncExitStack() as stack:
        identity_url = await stack.enter_async_context(_serve_jwks(issuer))
        environment = {
            "IAS_REDIS_URL": redis_url,
            "IAS_BUS_URL": bus_url,
            "IAS_SECRET_KEY": base64.b64encode(os.urandom(32)).decode(),
            "IAS_IDENTITY_URL": identity_url,
            "IAS_BILLING_DATABASE_URL": databases["billing"],
            "IAS_ANALYTICS_DATABASE_URL": databases["analytics"],
            "IAS_BILLING_HEAL_INTERVAL_S": "0.2",
            "IAS_GATEWAY_RUN_DIR": str(directory / "run"),
            "IAS_GATEWAY_METRICS_PORT": "0",
            "IAS_GATEWAY_SPOOL_DIR": str(directory / "spool"),
            "IAS_GATEWAY_ALLOW_LOOPBACK": "true",
            "IAS_GATEWAY_ACCESS_LOG": "false",
            "IAS_GATEWAY_PUBLISH_INTERVAL_S": "0.1",
            "IAS_GATEWAY_STREAM_PROGRESS_S": "0.2",
            **settings,
        }

        def program(name: str, *command: str, path: str = "/ready") -> Program:
            port = free_port()
            return Program(name, (*_IAS, *command, "--port", str(port)), environment, directory, port, path)

        billing = program("billing", "serve", "billing")
        admin = httpx.AsyncClient(base_url=billing.url, headers=issuer.platform_admin(), trust_env=False, timeout=10)
        platform = Platform(
            redis_url=redis_url,
            engine=program("engine", "engine", "sim", "--model", MODEL, *engine_options, path="/health"),
            gateway=program("gateway", "serve", "gateway", "--workers", str(workers)),
            billing=billing,
            consumers=[program(f"consumer-{n}", "consume", "billing", "analytics") for n in range(consumers)],
            databases=databases,
            admin=await stack.enter_async_context(admin),
            tenants=tenants,
        )
        await platform.push_documents()
        for each in platform.programs:
            each.start()
            stack.callback(each.stop)
        await asyncio.gather(*(each.until_ready() for each in platform.programs))
        yield platform


@asynccontextmanager
async def _serve_jwks(issuer: TokenIssuer) -> AsyncIterator[str]:
    body = json.dumps(await issuer.fetch_jwks()).encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        writer.write(head % len(body) + body)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

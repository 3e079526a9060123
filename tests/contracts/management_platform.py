"""All management services as `ias serve management` runs them, on real servers, over HTTP, with a little in them."""

import asyncio
import base64
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn

from ias.analytics import wiring as analytics_wiring
from ias.analytics.settings import AnalyticsSettings
from ias.billing import wiring as billing_wiring
from ias.billing.settings import BillingSettings
from ias.cli.http_protocol import ProblemProtocol
from ias.gitops import wiring as gitops_wiring
from ias.gitops.settings import GitopsSettings
from ias.identity import wiring as identity_wiring
from ias.identity.settings import IdentitySettings
from ias.kit.migrations import migrate
from ias.local.management import ManagementApp
from ias.local.ports import find_free_ports
from ias.registry import wiring as registry_wiring
from ias.registry.settings import RegistrySettings
from tests.servers import postgres_server

SERVICES = ("identity", "registry", "billing", "analytics", "gitops")
ADMIN = {"email": "root@example.com", "password": "correct horse battery"}
MEMBER = {"email": "member@example.com", "password": "a password of their own"}
SECRET = "a service's secret"
START_TIMEOUT_S = 120


@dataclass
class Platform:
    """Where it is, who calls it, and the ids of what is in it."""

    url: str
    tokens: dict[str, str] = field(default_factory=dict)
    """Of `platform_admin`, of `member`, and of a service for each service, by `internal SERVICE`."""
    ids: dict[str, str] = field(default_factory=dict)
    """By the name that paths have for them."""

    def ask(self, method: str, path: str, body: Any = None, *, caller: str | None = "platform_admin") -> Any:
        """The answer's body, which must be a success."""
        headers = {"authorization": f"Bearer {self.tokens[caller]}"} if caller else {}
        answer = httpx.request(method, self.url + path, json=body, headers=headers, timeout=60)
        assert answer.is_success, f"{method} {path}: {answer.text}"
        return answer.json() if answer.content else None

    def populate(self) -> None:
        """Sign in, and make one of each thing."""
        ask, ids = self.ask, self.ids
        self.tokens["platform_admin"] = ask("POST", "/identity/v1/sessions", ADMIN, caller=None)["access_token"]
        ids["org_id"] = org_id = ask("POST", "/identity/v1/orgs", {"name": "acme"})["id"]
        ask("POST", f"/identity/v1/orgs/{org_id}/members", {**MEMBER, "role": "developer"})
        self.tokens["member"] = ask("POST", "/identity/v1/sessions", MEMBER, caller=None)["access_token"]
        ids["project_id"] = project_id = ask("GET", f"/identity/v1/orgs/{org_id}/projects")["data"][0]["id"]
        key = {"name": "key"}
        ids["key_id"] = ask("POST", f"/identity/v1/projects/{project_id}/api-keys", key)["id"]
        model = {"name": "tiny", "context_length": 8192}
        ids["model_id"] = model_id = ask("POST", "/registry/v1/models", model)["id"]
        backend = {"url": "http://127.0.0.1:9/v1"}
        ids["backend_id"] = ask("POST", f"/registry/v1/models/{model_id}/backends", backend)["id"]
        price = {"model": "tiny", "input_usd_per_million": "1", "output_usd_per_million": "2"}
        ask("POST", "/billing/v1/prices", price)
        spec = {"scope": {"kind": "org", "id": org_id}, "window": "month", "limit_usd": "10", "mode": "hard"}
        ids["budget_id"] = ask("POST", "/billing/v1/budgets", {"org_id": org_id, **spec})["id"]
        document = {"apiVersion": "ias/v1", "kind": "Budget", "metadata": {"name": "all"}, "spec": spec}
        ids["plan_id"] = ask("POST", "/gitops/v1/plans", {"org_id": org_id, "documents": [document]})["id"]
        for service in SERVICES:
            client = {"client_id": "gateway", "client_secret": SECRET, "audience": service}
            token = ask("POST", "/internal/service-tokens", client, caller=None)
            self.tokens[f"internal {service}"] = token["access_token"]


@contextmanager
def running_platform(postgres_url: str, redis_url: str) -> Iterator[Platform]:
    """The platform in a thread of its own."""
    databases = {service: postgres_server.create_database(postgres_url, service) for service in SERVICES}
    try:
        for service, dsn in databases.items():
            migrate(service, dsn)
        (port,) = find_free_ports(1)
        platform = Platform(f"http://127.0.0.1:{port}")
        with _serving(_build(databases, redis_url, platform.url), port):
            platform.populate()
            yield platform
    finally:
        for dsn in databases.values():
            postgres_server.drop_database(postgres_url, dsn)


def _build(databases: dict[str, str], redis_url: str, url: str) -> ManagementApp:
    shared: dict[str, Any] = {
        "secret_key": base64.b64encode(bytes(range(32))).decode(),
        "redis_url": redis_url,
        "bus_url": redis_url,
        "identity_url": url,
        "database_pool_size": 4,
        "rate_limit_credentials_per_minute": 0,
        "rate_limit_writes_per_minute": 0,
        "rate_limit_reads_per_minute": 0,
        "rate_limit_address_per_minute": 0,
        **{f"{service}_database_url": dsn for service, dsn in databases.items()},
    }
    identity = IdentitySettings(
        **shared,
        identity_bcrypt_rounds=4,
        identity_admin_email=ADMIN["email"],
        identity_admin_password=ADMIN["password"],
        identity_service_clients={"gateway": hashlib.sha256(SECRET.encode()).hexdigest()},
        identity_service_audiences={"gateway": list(SERVICES)},
        identity_access_token_s=3600,
    )
    apps = {
        "identity": identity_wiring.build_app(identity),
        "registry": registry_wiring.assemble(
            RegistrySettings(**shared, registry_allow_loopback=True, registry_verify_timeout_s=1)
        ),
        "billing": billing_wiring.assemble(BillingSettings(**shared)),
        "analytics": analytics_wiring.assemble(AnalyticsSettings(**shared)),
        "gitops": gitops_wiring.assemble(GitopsSettings(**shared, billing_url=url)),
    }
    return ManagementApp(apps, version="test")


@contextmanager
def _serving(app: ManagementApp, port: int) -> Iterator[None]:
    config = uvicorn.Config(
        app,
        port=port,
        http=ProblemProtocol,
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    started = threading.Event()

    async def serve() -> None:
        serving = asyncio.create_task(server.serve())
        while not server.started and not serving.done():
            await asyncio.sleep(0.02)
        started.set()
        await serving

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert started.wait(START_TIMEOUT_S), "the services did not start"
    assert server.started, "the services did not start"
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(30)

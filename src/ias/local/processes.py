"""The platform's own processes: the command, the environment and the sign of readiness of each."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from ias.local.data_directory import DataDirectory
from ias.local.generated_secrets import GeneratedSecrets
from ias.local.options import UpOptions
from ias.local.ports import LOOPBACK
from ias.local.postgres import Postgres
from ias.local.privileges import bind_to_parent
from ias.local.process import Probe, ProcessSpec
from ias.local.redis import Redis

SERVICES = ["identity", "registry", "billing", "analytics", "gitops"]
"""The services that have a database."""

CONSUMERS = ["billing", "analytics", "identity"]

_SERVICE_CLIENTS = ["gateway", "billing"]
"""Who may ask identity for a service token. On one machine they share one secret, which never leaves it."""

_GATEWAY_STOP_TIMEOUT_S = 45.0
"""Longer than the gateway's own drain."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where everything of one platform is."""

    options: UpOptions
    data: DataDirectory
    secrets: GeneratedSecrets
    postgres: Postgres
    redis: Redis
    engine_port: int
    metrics_port: int
    """Of the gateway's `/metrics`."""
    consumers_port: int
    """Of the consumers' health endpoints."""
    client: httpx.AsyncClient
    """For asking processes whether they are ready."""

    @property
    def gateway_url(self) -> str:
        """Where this machine reaches the gateway."""
        return f"http://{_reachable(self.options.host)}:{self.options.port}"

    @property
    def management_url(self) -> str:
        """Where this machine reaches the management APIs."""
        return f"http://{_reachable(self.options.host)}:{self.options.management_port}"

    @property
    def gateway_metrics_url(self) -> str:
        """Where this machine reads the gateway's metrics."""
        return f"http://{LOOPBACK}:{self.metrics_port}/metrics"

    @property
    def engine_url(self) -> str:
        """The built-in engine, without its version path."""
        return f"http://{LOOPBACK}:{self.engine_port}"


def management_spec(place: Place) -> ProcessSpec:
    """All management services in one process."""
    listen = ["--host", place.options.host, "--port", str(place.options.management_port)]
    return _spec(
        place, "management", ["serve", "management", *listen], _answers(place, f"{place.management_url}/ready")
    )


def consumers_spec(place: Place) -> ProcessSpec:
    """The event consumers, with a port for their health."""
    arguments = ["consume", *CONSUMERS, "--host", LOOPBACK, "--port", str(place.consumers_port)]
    return _spec(place, "consumers", arguments, _answers(place, f"http://{LOOPBACK}:{place.consumers_port}/ready"))


def engine_spec(place: Place) -> ProcessSpec:
    """The built-in engine."""
    arguments = ["engine", "sim", "--host", LOOPBACK, "--port", str(place.engine_port), "--model", place.options.model]
    arguments += ["--context-length", str(place.options.context_length)]
    return _spec(place, "engine", arguments, _answers(place, f"{place.engine_url}/health"))


def gateway_spec(place: Place) -> ProcessSpec:
    """The inference API."""
    arguments = ["serve", "gateway", "--host", place.options.host, "--port", str(place.options.port)]
    arguments += ["--workers", str(place.options.workers)]
    return _spec(
        place,
        "gateway",
        arguments,
        _answers(place, f"{place.gateway_url}/ready"),
        stop_timeout_s=_GATEWAY_STOP_TIMEOUT_S,
    )


def environment(place: Place) -> dict[str, str]:
    """What the platform's processes are told. The caller's own `IAS_…` settings count where the platform sets nothing."""
    secrets = place.secrets
    clients = dict.fromkeys(_SERVICE_CLIENTS, secrets.service_secret_digest)
    own = {
        "IAS_SECRET_KEY": secrets.secret_key,
        "IAS_SERVICE_SECRET": secrets.service_secret,
        "IAS_REDIS_URL": place.redis.url,
        "IAS_BUS_URL": place.redis.url,
        "IAS_IDENTITY_URL": place.management_url,
        "IAS_BILLING_URL": place.management_url,
        "IAS_ANALYTICS_URL": place.management_url,
        "IAS_REGISTRY_URL": place.management_url,
        "IAS_IDENTITY_SERVICE_CLIENTS": json.dumps(clients),
        "IAS_IDENTITY_ADMIN_EMAIL": secrets.admin_email,
        "IAS_IDENTITY_ADMIN_PASSWORD": secrets.admin_password,
        "IAS_IDENTITY_PUBLIC_URL": place.management_url,
        "IAS_MAIL_TO_LOG": "true",  # there is no mail server, and who reads this log owns the platform
        "IAS_GATEWAY_SPOOL_DIR": str(place.data.spool),
        "IAS_GATEWAY_RUN_DIR": str(place.data.run),
        "IAS_GATEWAY_METRICS_HOST": LOOPBACK,
        "IAS_GATEWAY_METRICS_PORT": str(place.metrics_port),
        "IAS_REGISTRY_ALLOW_LOOPBACK": "true",  # the engine, and most upstreams, are on this machine
        "IAS_GATEWAY_ALLOW_LOOPBACK": "true",
    }
    databases = {f"IAS_{name.upper()}_DATABASE_URL": place.postgres.database_url(name, secrets) for name in SERVICES}
    return {**_inherited(os.environ), **own, **databases}


def _inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment, with loopback taken out of whatever proxy it names."""
    kept = {name: value for name, value in environ.items() if name != "IAS_UPSTREAM_KEY"}
    exempt = ",".join(filter(None, [kept.get("no_proxy") or kept.get("NO_PROXY"), "127.0.0.1,localhost"]))
    return {**kept, "no_proxy": exempt, "NO_PROXY": exempt}


def _spec(place: Place, name: str, arguments: list[str], probe: Probe, *, stop_timeout_s: float = 15.0) -> ProcessSpec:
    return ProcessSpec(
        name=name,
        arguments=bind_to_parent([sys.executable, "-m", "ias", *arguments], "SIGTERM"),
        environment=environment(place),
        log_file=place.data.log_file(name),
        probe=probe,
        stop_timeout_s=stop_timeout_s,
    )


def _answers(place: Place, url: str) -> Probe:
    async def probe() -> bool:
        try:
            answer = await place.client.get(url)
        except httpx.HTTPError:
            return False
        return answer.is_success

    return probe


def _reachable(host: str) -> str:
    return LOOPBACK if host in ("0.0.0.0", "::", "") else host

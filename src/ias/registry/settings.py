"""What the registry is told by the environment."""

from pathlib import Path

from pydantic import Field

from ias.kit.settings import BusSettings, DatabaseUrl, ServiceSettings


class RegistrySettings(BusSettings, ServiceSettings):
    """Settings of the registry, beside those of every service."""

    registry_database_url: DatabaseUrl = Field(
        description="PostgreSQL of the registry: `postgresql://user:password@host:port/ias_registry`."
    )
    registry_allow_loopback: bool = Field(
        False, description="Whether a backend may be on this very machine (127.0.0.0/8, ::1, localhost)."
    )
    registry_allow_private_networks: bool = Field(
        True,
        description="Whether a backend may be in a private network (10.0.0.0/8, fc00::/7, …), where own engines live.",
    )
    registry_credentials_dir: Path | None = Field(
        None,
        description="Directory of files with backends' API keys, e.g. a mounted secret, which `credential_from` may name.",
    )
    registry_heal_interval_s: float = Field(
        1.0, gt=0, description="How often the route table in Redis is compared with the one in PostgreSQL."
    )
    registry_prober: bool = Field(
        True, description="Whether this process may be the one that probes backends; one of them all is at a time."
    )
    registry_probe_interval_s: float = Field(
        5.0, gt=0, description="How often each backend is probed (`/health`, `/v1/models`), a fifth more or less."
    )
    registry_scrape_interval_s: float = Field(
        2.0, gt=0, description="How often the load of each vLLM backend is read (`/metrics`), a fifth more or less."
    )
    registry_probe_timeout_s: float = Field(2.0, gt=0, description="Deadline of one probe or scrape.")
    registry_probes_at_once_max: int = Field(200, ge=1, description="Probes and scrapes that go on at once, at most.")
    registry_prober_lease_s: float = Field(
        5.0, ge=1, description="After so long without a sign of life of the registry that probes, another one does."
    )
    registry_ramp_s: float = Field(
        30.0, ge=0, description="How long a backend that recovered gets less than its share of the requests."
    )
    registry_circuit_failures_min: int = Field(
        5,
        ge=1,
        description="A backend's circuit opens when so many requests failed one after the other, or within 20 s and half of them.",
    )
    registry_circuit_open_s: float = Field(
        5.0,
        gt=0,
        description="How long a circuit is open the first time; each time after that twice as long, up to 300 s.",
    )
    registry_verify_timeout_s: float = Field(
        30.0, gt=0, description="Deadline of the one completion that a verification sends through a backend."
    )
    registry_resolve_timeout_s: float = Field(
        2.0, gt=0, description="Deadline of the name look-up with which a backend's URL is checked."
    )

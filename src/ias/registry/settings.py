"""What the registry is told by the environment."""

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
    registry_heal_interval_s: float = Field(
        1.0, gt=0, description="How often the route table in Redis is compared with the one in PostgreSQL."
    )
    registry_verify_timeout_s: float = Field(
        30.0, gt=0, description="Deadline of the one completion that a verification sends through a backend."
    )
    registry_resolve_timeout_s: float = Field(
        2.0, gt=0, description="Deadline of the name look-up with which a backend's URL is checked."
    )

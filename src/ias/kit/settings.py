"""Settings come from the environment, prefix `IAS_`, and are read once, by a process's wiring."""

from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class ProcessSettings(BaseSettings):
    """What every process of the platform is told."""

    model_config = SettingsConfigDict(env_prefix="IAS_", frozen=True, extra="ignore")

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level that is logged.")
    log_format: Literal["json", "console"] = Field("json", description="JSON lines, or coloured text for a terminal.")
    otlp_endpoint: str | None = Field(
        None, description="OTLP/HTTP endpoint that traces are sent to, e.g. `http://tempo:4318`; unset sends none."
    )
    secret_key: SecretStr = Field(
        description="Root secret, base64 of 32 bytes, the same for every process: seals credentials, signs cursors."
    )
    redis_url: SecretStr = Field(
        description="Redis for caches, counters and pushed documents: `redis://[:password@]host:port/db`."
    )
    redis_timeout_s: float = Field(2.0, description="Deadline of one Redis operation outside the gateway's own.")


class ServiceSettings(ProcessSettings):
    """What every management service is told besides."""

    identity_url: str = Field(
        "http://127.0.0.1:8001", description="Base URL at which identity answers: its JWKS and `/internal` routes."
    )
    request_body_bytes_max: int = Field(1_048_576, description="Largest request body of a management API; more is 413.")
    database_pool_size: int = Field(10, description="PostgreSQL connections a process keeps at most.")
    database_timeout_s: float = Field(
        10.0, description="Deadline of one SQL statement and of waiting for a connection."
    )

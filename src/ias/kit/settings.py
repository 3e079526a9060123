"""Settings come from the environment, prefix `IAS_`, and are read once, by a process's wiring.

Addresses and keys are checked for their form when they are read. What is said of a wrong one never holds its value, which may
hold a password.
"""

import base64
import re
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

_REDIS_SCHEMES = ("redis", "rediss", "unix")
_BUS_SCHEMES = ("amqp", "amqps", *_REDIS_SCHEMES)
_DATABASE_URL = re.compile(
    r"(?:postgresql|postgres)(?:\+asyncpg)?://(?:[^@]*@)?(?:\[[^\]]+\]|[^/:@?]*)(?::\d+)?(?:[/?].*)?"
)
"""Looser than a URL's own syntax, as SQLAlchemy is: a password may hold a slash."""


def check_database_url(url: str) -> None:
    """Return when a text has the form of a database's address.

    Raises:
        ValueError: saying what the form is, and nothing of the text.
    """
    if not _DATABASE_URL.fullmatch(url):
        raise ValueError("must be a URL like postgresql://user:password@host:5432/database")


def _check_secret_key(secret: SecretStr) -> SecretStr:
    try:
        size_bytes = len(base64.b64decode(secret.get_secret_value(), validate=True))
    except ValueError:
        size_bytes = 0
    if size_bytes != 32:
        raise ValueError("must be the base64 of 32 bytes; `openssl rand -base64 32` makes one")
    return secret


def _check_database_url(secret: SecretStr) -> SecretStr:
    check_database_url(secret.get_secret_value())
    return secret


def _check_redis_url(secret: SecretStr) -> SecretStr:
    if not _is_url(secret.get_secret_value(), _REDIS_SCHEMES):
        raise ValueError("must be a URL like redis://:password@host:6379/0 (or rediss://, unix://)")
    return secret


def _check_bus_url(secret: SecretStr) -> SecretStr:
    if not _is_url(secret.get_secret_value(), _BUS_SCHEMES):
        raise ValueError(
            "must be a URL like amqp://user:password@host:5672/ or redis://:password@host:6379/0"
            " (or amqps://, rediss://, unix://)"
        )
    return secret


def _is_url(text: str, schemes: tuple[str, ...]) -> bool:
    if text.partition("://")[0] not in schemes or "://" not in text:
        return False
    try:
        port = urlsplit(text).port
    except ValueError:
        return False
    return port is None or port > 0


SecretKey = Annotated[SecretStr, AfterValidator(_check_secret_key)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_check_database_url)]
RedisUrl = Annotated[SecretStr, AfterValidator(_check_redis_url)]
BusUrl = Annotated[SecretStr, AfterValidator(_check_bus_url)]


class ProcessSettings(BaseSettings):
    """What every process of the platform is told."""

    model_config = SettingsConfigDict(env_prefix="IAS_", frozen=True, extra="ignore", hide_input_in_errors=True)

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level that is logged.")
    log_format: Literal["json", "console"] = Field("json", description="JSON lines, or coloured text for a terminal.")
    otlp_endpoint: str | None = Field(
        None, description="OTLP/HTTP endpoint that traces are sent to, e.g. `http://tempo:4318`; unset sends none."
    )
    secret_key: SecretKey = Field(
        description="Root secret, base64 of 32 bytes, the same for every process: seals credentials, signs cursors."
    )
    redis_url: RedisUrl = Field(
        description="Redis for caches, counters and pushed documents: `redis://[:password@]host:port/db`."
    )
    redis_timeout_s: float = Field(2.0, description="Deadline of one Redis operation outside the gateway's own.")


class BusSettings(BaseSettings):
    """What whoever meets the bus is told."""

    model_config = SettingsConfigDict(env_prefix="IAS_", frozen=True, extra="ignore", hide_input_in_errors=True)

    bus_url: BusUrl = Field(description="The event bus: `amqp://…` (RabbitMQ) or `redis://…` (Redis Streams).")


class ServiceSettings(ProcessSettings):
    """What every management service is told besides."""

    identity_url: str = Field(
        "http://127.0.0.1:8001", description="Base URL at which identity answers: its JWKS and `/internal` routes."
    )
    request_body_bytes_max: int = Field(1_048_576, description="Largest request body of a management API; more is 413.")
    audit_denials_per_caller_max: int = Field(
        120,
        ge=1,
        description="Different denials of a caller that are one audit entry each in a minute; more are one entry with a count.",
    )
    rate_limit_address_per_minute: int = Field(
        12_000, ge=0, description="Requests a minute from one address (an IPv6 /64); more are 429. 0: no limit."
    )
    rate_limit_reads_per_minute: int = Field(
        6_000, ge=0, description="GETs a minute of one caller; more are 429. 0: no limit."
    )
    rate_limit_writes_per_minute: int = Field(
        1_200, ge=0, description="Writes a minute of one caller; more are 429. 0: no limit."
    )
    rate_limit_credentials_per_minute: int = Field(
        120, ge=0, description="Tries a minute from one address to get a token; more are 429. 0: no limit."
    )
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = Field(
        (),
        description='Networks of the proxies before the management APIs, as JSON, e.g. `["10.0.0.0/8"]`. Their'
        " `X-Forwarded-For` is believed, nobody else's.",
    )
    database_pool_size: int = Field(10, description="PostgreSQL connections a process keeps at most.")
    database_timeout_s: float = Field(
        10.0, description="Deadline of one SQL statement and of waiting for a connection."
    )

"""What the identity service is told by its environment."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from ias.identity.core.service_tokens import Audience
from ias.kit.mail import MailSettings
from ias.kit.settings import BusSettings, DatabaseUrl, ServiceSettings


def _check_public_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise ValueError("must be a URL like https://ias.example.com")
    return url.rstrip("/")


_SERVICE_AUDIENCES: dict[str, list[Audience]] = {"gateway": ["identity"], "billing": ["analytics", "registry"]}
"""Who calls whose `/internal` routes: gateways resolve keys, billing reconciles with what analytics and engines counted."""

HttpUrlText = Annotated[str, AfterValidator(_check_public_url)]


class IdentitySettings(MailSettings, ServiceSettings):
    """Settings of identity, on top of those of every service."""

    identity_database_url: DatabaseUrl = Field(
        description="PostgreSQL of identity: `postgresql://user:pass@host:port/db`."
    )
    identity_service_clients: dict[str, str] = Field(
        default_factory=dict,
        description="Processes that may ask for service tokens: JSON of client id to SHA-256 of its secret, in hexadecimal.",
    )
    identity_service_audiences: dict[str, list[Audience]] = Field(
        default_factory=lambda: dict(_SERVICE_AUDIENCES),
        description="Services that each of those processes may get tokens for: JSON of client id to a list of services.",
    )
    identity_admin_email: str | None = Field(
        None, description="E-mail of the first administrator, who is made at start while the platform has none."
    )
    identity_admin_password: SecretStr | None = Field(
        None, description="Password of the first administrator, 8 characters to 72 bytes. Change it after signing in."
    )
    identity_access_token_s: int = Field(
        600,
        ge=60,
        le=3600,
        description="How long an access token is valid; what it grants can be this much out of date.",
    )
    identity_session_days: int = Field(30, ge=1, le=365, description="How long a session can be refreshed.")
    identity_signing_key_days: int = Field(90, ge=1, description="After how long a new key signs the tokens.")
    identity_audit_checkpoint_s: float = Field(
        3600.0, gt=0, description="How often the ends of the audit log's chains are signed, where they have grown."
    )
    identity_bcrypt_rounds: int = Field(
        12, ge=4, le=16, description="Cost of a password hash; each one more doubles it."
    )
    identity_bcrypt_threads: int = Field(2, ge=1, description="Passwords that are checked at the same time.")
    identity_bcrypt_waiting_max: int = Field(100, ge=1, description="Sign-ins under way at most; more are 503.")
    identity_public_url: HttpUrlText = Field(
        "http://127.0.0.1:8080",
        description="Where people reach the platform in their browsers: what links in e-mails begin with.",
    )
    identity_mail_interval_s: float = Field(1.0, gt=0, le=60, description="How often e-mails to send are looked for.")
    identity_deleted_days: int = Field(
        30, ge=0, le=3650, description="How long a deleted org or project can be restored before it is purged."
    )
    identity_purge_interval_s: float = Field(
        600, gt=0, le=86400, description="How often is looked for what is to be purged."
    )
    identity_oidc_allow_loopback: bool = Field(
        False, description="Whether an identity provider may be on this machine: for development."
    )
    identity_oidc_allow_private_networks: bool = Field(
        False, description="Whether an identity provider may be at an address of a private network."
    )
    identity_oidc_timeout_s: float = Field(
        10.0, gt=0, le=60, description="Deadline of one request to an identity provider."
    )
    identity_project_keys_max: int = Field(
        1_000, ge=1, le=1_000_000, description="API keys that a project may have in use: neither revoked nor expired."
    )
    identity_push_interval_s: float = Field(
        0.5, gt=0, le=60, description="How often Redis is checked for having been told every change."
    )


class IdentityConsumerSettings(BusSettings, IdentitySettings):
    """Settings of the process that consumes other services' audit records and gateways' usage records."""

"""What the identity service is told by its environment."""

from pydantic import Field, SecretStr

from ias.kit.settings import DatabaseUrl, ServiceSettings


class IdentitySettings(ServiceSettings):
    """Settings of identity, on top of those of every service."""

    identity_database_url: DatabaseUrl = Field(
        description="PostgreSQL of identity: `postgresql://user:pass@host:port/db`."
    )
    identity_service_clients: dict[str, str] = Field(
        default_factory=dict,
        description="Processes that may ask for service tokens: JSON of client id to SHA-256 of its secret, in hexadecimal.",
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
    identity_bcrypt_rounds: int = Field(
        12, ge=4, le=16, description="Cost of a password hash; each one more doubles it."
    )
    identity_bcrypt_threads: int = Field(2, ge=1, description="Passwords that are checked at the same time.")
    identity_bcrypt_waiting_max: int = Field(100, ge=1, description="Sign-ins under way at most; more are 503.")
    identity_push_interval_s: float = Field(
        0.5, gt=0, le=60, description="How often Redis is checked for having been told every change."
    )

"""What billing is told by the environment."""

from pydantic import Field, SecretStr

from ias.kit.mail import MailSettings
from ias.kit.settings import BusSettings, DatabaseUrl, ServiceSettings


class BillingSettings(BusSettings, MailSettings, ServiceSettings):
    """Settings of billing, beside those of every service."""

    billing_database_url: DatabaseUrl = Field(
        description="PostgreSQL of billing: `postgresql://user:password@host:port/ias_billing`."
    )
    billing_heal_interval_s: float = Field(
        1.0, gt=0, description="How often prices, budgets and counters in Redis are compared with PostgreSQL."
    )
    billing_gateways_return_s: float = Field(
        3.0,
        ge=0,
        description="After Redis lost its data, time for gateways to come back before its counters are complete again.",
    )
    billing_reconcile_interval_s: float = Field(
        3600.0,
        gt=0,
        description="How often the ledger is compared with its projections, with analytics and with Redis.",
    )
    billing_reconcile_pause_s: float = Field(
        3.0,
        gt=0,
        description="How long what differs is given to arrive before a reconciliation looks at it again.",
    )
    billing_alert_interval_s: float = Field(
        1.0, gt=0, le=60, description="How often alerts that are to be told are looked for."
    )
    billing_webhook_timeout_s: float = Field(
        10.0, gt=0, le=60, description="Deadline of one try to post an alert to a webhook, its answer included."
    )
    billing_webhook_allow_loopback: bool = Field(
        False, description="Whether alerts may be posted to this very machine (127.0.0.0/8, ::1, localhost)."
    )
    billing_webhook_allow_private_networks: bool = Field(
        False, description="Whether alerts may be posted into private networks (10.0.0.0/8, fc00::/7, …)."
    )
    analytics_url: str = Field(
        "http://127.0.0.1:8004", description="Base URL of analytics, whose sums billing compares with its ledger."
    )
    registry_url: str = Field(
        "http://127.0.0.1:8002", description="Base URL of the registry, which reads what engines count."
    )
    billing_engine_tolerance: float = Field(
        0.02,
        ge=0,
        le=1,
        description="Share of the tokens served by which an engine's own count may differ from the ledger.",
    )
    service_secret: SecretStr | None = Field(
        None, description="This process's client secret at identity; unset never asks identity."
    )

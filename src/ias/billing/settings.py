"""What billing is told by the environment."""

from pydantic import Field

from ias.kit.settings import BusSettings, DatabaseUrl, ServiceSettings


class BillingSettings(BusSettings, ServiceSettings):
    """Settings of billing, beside those of every service."""

    billing_database_url: DatabaseUrl = Field(
        description="PostgreSQL of billing: `postgresql://user:password@host:port/ias_billing`."
    )
    billing_heal_interval_s: float = Field(
        1.0, gt=0, description="How often prices, budgets and counters in Redis are compared with PostgreSQL."
    )

"""What gitops is told by the environment."""

from pydantic import Field

from ias.kit.settings import BusSettings, DatabaseUrl, ServiceSettings


class GitopsSettings(BusSettings, ServiceSettings):
    """Settings of gitops, beside those of every service."""

    gitops_database_url: DatabaseUrl = Field(
        description="PostgreSQL of gitops: `postgresql://user:password@host:port/ias_gitops`."
    )
    billing_url: str = Field(
        "http://127.0.0.1:8003", description="Base URL at which billing answers: `/billing/v1/budgets`."
    )
    gitops_billing_timeout_s: float = Field(5.0, gt=0, description="Deadline of one call to billing.")
    gitops_apply_timeout_s: float = Field(
        50.0, gt=0, description="How long one application of a plan works; applying again continues where it stopped."
    )

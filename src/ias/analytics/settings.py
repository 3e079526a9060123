"""What analytics is told by the environment."""

from pydantic import Field

from ias.kit.settings import BusSettings, DatabaseUrl, ServiceSettings


class AnalyticsSettings(BusSettings, ServiceSettings):
    """Settings of analytics, beside those of every service."""

    analytics_database_url: DatabaseUrl = Field(
        description="PostgreSQL of analytics: `postgresql://user:password@host:port/ias_analytics`."
    )

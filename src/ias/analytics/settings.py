"""What analytics is told by the environment."""

from pydantic import Field

from ias.kit.settings import BusSettings, DatabaseUrl, ServiceSettings


class AnalyticsSettings(ServiceSettings):
    """Settings of analytics, beside those of every service."""

    analytics_database_url: DatabaseUrl = Field(
        description="PostgreSQL of analytics: `postgresql://user:password@host:port/ias_analytics`."
    )


class AnalyticsConsumerSettings(BusSettings, AnalyticsSettings):
    """Settings of the process that counts usage records."""

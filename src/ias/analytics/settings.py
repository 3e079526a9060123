"""What analytics is told by the environment."""

from pydantic import Field

from ias.kit.settings import BusUrl, DatabaseUrl, ServiceSettings


class AnalyticsSettings(ServiceSettings):
    """Settings of analytics, beside those of every service."""

    analytics_database_url: DatabaseUrl = Field(
        description="PostgreSQL of analytics: `postgresql://user:password@host:port/ias_analytics`."
    )


class AnalyticsConsumerSettings(AnalyticsSettings):
    """Settings of the process that counts usage records."""

    bus_url: BusUrl = Field(description="The event bus: `amqp://…` (RabbitMQ) or `redis://…` (Redis Streams).")

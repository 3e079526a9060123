"""`/analytics/v1/usage`: what was used, over time."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Query
from pydantic import Field

from ias.analytics.api.parts import UsagePart
from ias.analytics.core.histograms import percentile_ms
from ias.analytics.store.usage_hourly import Bucket, Group, UsageSum
from ias.contracts.money import format_usd
from ias.contracts.permissions import Permission
from ias.kit.authorization import Access, requires
from ias.kit.moments import Moment
from ias.kit.routing import Router
from ias.kit.web import Answer

router = Router(prefix="/analytics/v1/usage", tags=["usage"])


class LatencyAnswer(Answer):
    """Percentiles in milliseconds, exact to within 19 %; null when nothing was measured."""

    p50: float | None
    p95: float | None
    p99: float | None


class UsagePointAnswer(Answer):
    """What was used in one bucket of time, by one group."""

    start: datetime = Field(description="The bucket's first moment, in UTC.")
    group: str | None = Field(
        description="The model's name or the id that `group_by` asked for; null where there is none."
    )
    requests: int
    failed: int
    cancelled: int
    input_tokens: int = Field(description="Cached ones included.")
    cached_input_tokens: int
    output_tokens: int
    cost_usd: str
    time_to_first_token_ms: LatencyAnswer
    duration_ms: LatencyAnswer


class UsageAnswer(Answer):
    """Usage by bucket and group, oldest first. Buckets without requests are left out."""

    data: list[UsagePointAnswer]
    as_of: datetime | None = Field(description="When the newest request in this answer was counted; null without any.")


@router.get("")
async def get_usage(
    *,
    access: Annotated[Access, requires(Permission.USAGE_READ)],
    usage: UsagePart,
    org_id: Annotated[UUID, Query()],
    start: Annotated[Moment | None, Query(description="Absent: a day back by hour, thirty by day.")] = None,
    end: Annotated[Moment | None, Query(description="Absent: now.")] = None,
    bucket: Annotated[Bucket, Query()] = "hour",
    group_by: Annotated[Group, Query()] = "none",
) -> UsageAnswer:
    """An org's requests, tokens, cost and latencies over time. Requests count in the hour they were admitted in."""
    scope = access.in_org(str(org_id))
    sums = await usage.sum_up(scope, start=start, end=end, bucket=bucket, group=group_by)
    return UsageAnswer(data=[_render(one) for one in sums], as_of=max((one.counted_at for one in sums), default=None))


def _render(one: UsageSum) -> UsagePointAnswer:
    return UsagePointAnswer(
        start=one.start,
        group=one.group,
        requests=one.requests,
        failed=one.failed,
        cancelled=one.cancelled,
        input_tokens=one.input_tokens,
        cached_input_tokens=one.cached_input_tokens,
        output_tokens=one.output_tokens,
        cost_usd=format_usd(one.cost_nano_usd),
        time_to_first_token_ms=_render_latency(one.ttft_histogram),
        duration_ms=_render_latency(one.duration_histogram),
    )


def _render_latency(histogram: list[int]) -> LatencyAnswer:
    return LatencyAnswer(
        p50=percentile_ms(histogram, 50), p95=percentile_ms(histogram, 95), p99=percentile_ms(histogram, 99)
    )

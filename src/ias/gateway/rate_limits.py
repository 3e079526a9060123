"""What clients hear of rate limits: OpenAI's `x-ratelimit-*` headers from the tightest ones; a refusal that says which and when."""

from collections.abc import Sequence
from typing import Final

from ias.contracts.spending import Metric, RateLimit
from ias.gateway.errors import DO_NOT_RETRY, Refusal

RETRY_MS_MAX: Final = 60_000
"""Clients are asked not to try again by themselves where it is longer: OpenAI's SDKs wait 60 or 120 s at most, and some that are
told to wait for longer come back at once."""
_UNKNOWN_WAIT_MS: Final = 1_000
"""Nobody knows when a request that is being served will end."""

_SHORT_NAMES: Final[dict[Metric, str]] = {
    "requests_per_minute": "requests per min (RPM)",
    "tokens_per_minute": "tokens per min (TPM)",
    "requests_per_day": "requests per day (RPD)",
    "concurrency": "concurrent requests",
}


def limit_headers(limits: Sequence[RateLimit], counts: Sequence[int]) -> bytes:
    """The header lines: for requests and for tokens the limit of which the least is left. Concurrency has none."""
    requests = tokens = -1
    for i, limit in enumerate(limits):
        metric = limit.metric
        if metric == "tokens_per_minute":
            if tokens < 0 or counts[2 * i] < counts[2 * tokens]:
                tokens = i
        elif metric != "concurrency" and (requests < 0 or counts[2 * i] < counts[2 * requests]):
            requests = i
    lines = b""
    if requests >= 0:
        left, reset_ms = counts[2 * requests : 2 * requests + 2]
        lines = (
            b"x-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %d\r\nx-ratelimit-reset-requests: %b\r\n"
            % (limits[requests].limit, left, format_duration(reset_ms))
        )
    if tokens >= 0:
        left, reset_ms = counts[2 * tokens : 2 * tokens + 2]
        lines += (
            b"x-ratelimit-limit-tokens: %d\r\nx-ratelimit-remaining-tokens: %d\r\nx-ratelimit-reset-tokens: %b\r\n"
            % (limits[tokens].limit, left, format_duration(reset_ms))
        )
    return lines


def format_duration(millis: int) -> bytes:
    """A duration as Go prints it, which is OpenAI's format: `0s`, `120ms`, `8.64s`, `6m0s`, `23h55m16.126s`."""
    if millis < 1000:
        return b"%dms" % millis if millis else b"0s"
    minutes, millis = divmod(millis, 60_000)
    seconds = b"%d" % (millis // 1000)
    if millis % 1000:
        seconds += (b".%03d" % (millis % 1000)).rstrip(b"0")
    if minutes < 60:
        return b"%dm%bs" % (minutes, seconds) if minutes else b"%bs" % seconds
    return b"%dh%dm%bs" % (minutes // 60, minutes % 60, seconds)


def over_limit(limit: RateLimit, model: str, *, left: int, asked: int, wait_ms: int) -> Refusal:
    """429: a rate limit has no room now, or (`wait_ms` below 0) never has as much as this request asks for.

    `wait_ms` 0: nobody can say how long it takes.
    """
    kind = "tokens" if limit.metric == "tokens_per_minute" else "requests"
    where = f"for model `{model}` in {_name_scope(limit)} on {_SHORT_NAMES[limit.metric]}"
    if wait_ms < 0:
        text = (
            f"Request too large {where}: Limit {limit.limit}, Requested {asked}. The input or output tokens must be reduced "
            "in order to run successfully."
        )
        headers = DO_NOT_RETRY
    else:
        wait_ms = wait_ms or _UNKNOWN_WAIT_MS
        text = (
            f"Rate limit reached {where}: Limit {limit.limit}, Used {limit.limit - left}, Requested {asked}. "
            f"Please try again in {format_duration(wait_ms).decode()}."
        )
        headers = b"retry-after: %d\r\nretry-after-ms: %d\r\n" % (-(-wait_ms // 1000), wait_ms)
        if wait_ms > RETRY_MS_MAX:
            headers += DO_NOT_RETRY
    return Refusal(
        429,
        text,
        kind=kind,
        code="rate_limit_exceeded",
        headers=headers,
        denied_by=f"rate_limit:{limit.id}",
    )


def _name_scope(limit: RateLimit) -> str:
    match limit.scope_kind:
        case "org":
            return f"organization {limit.scope_id}"
        case "model":
            return "this organization"
        case _:
            return f"{limit.scope_kind.replace('_', ' ')} {limit.scope_id}"

"""Closing stage, record: the usage record into the spool, the numbers into the metrics, the line into the access log."""

import time
from typing import Any

from ias.contracts.events import UsageRecord
from ias.gateway.context import Gateway
from ias.gateway.exchange import NEXT, Exchange, Progress
from ias.gateway.request_ids import to_uuid_text


def record(exchange: Exchange, gateway: Gateway) -> Progress:
    """Write down what happened. Only requests that a backend served are usage."""
    duration_s = time.perf_counter() - exchange.started
    ttft_s = None if exchange.first_byte_at is None else exchange.first_byte_at - exchange.started
    if exchange.was_served and exchange.usage is not None:
        gateway.spool.append(usage_record(exchange, gateway, duration_s, ttft_s))
    gateway.metrics.observe(exchange, duration_s, ttft_s)
    gateway.access_log.write(exchange, duration_s, ttft_s)
    return NEXT


def usage_record(exchange: Exchange, gateway: Gateway, duration_s: float, ttft_s: float | None) -> UsageRecord:
    """The record billing and analytics book."""
    principal, usage, price, backend = exchange.principal, exchange.usage, exchange.price, exchange.backend
    if principal is None or usage is None or backend is None:
        raise AssertionError("only served requests are recorded")
    key = principal.key
    return UsageRecord(
        id=to_uuid_text(exchange.record_hex),
        request_id=exchange.request_id,
        occurred_at=gateway.clock.rfc3339(),
        org_id=key.org_id,
        project_id=key.project_id,
        api_key_id=key.key_id,
        user_id=key.user_id,
        service_account_id=key.service_account_id,
        endpoint=exchange.endpoint.path,
        model=exchange.model,
        backend_id=backend.id,
        streamed=exchange.streamed,
        status=exchange.status,
        outcome=exchange.outcome,
        input_tokens=usage.input_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        output_tokens=usage.output_tokens,
        estimated=usage.estimated,
        price_id=None if price is None else price.id,
        price_version=None if price is None else price.version,
        cost_nano_usd=exchange.cost_nano_usd,
        ttft_ms=None if ttft_s is None else round(ttft_s * 1000, 3),
        duration_ms=round(duration_s * 1000, 3),
        decision=explain(exchange),
    )


def explain(exchange: Exchange) -> dict[str, Any]:
    """Why the request was admitted and routed so."""
    decision: dict[str, Any] = {"backend": None if exchange.backend is None else exchange.backend.id}
    if exchange.plan is not None:
        decision["budgets"] = [budget.id for budget in exchange.plan.budgets]
        decision["reserved_nano_usd"] = exchange.reserved_nano_usd
        decision["remaining_nano_usd"] = exchange.remaining_nano_usd
    if exchange.output_tokens_max is not None:
        decision["output_tokens_max"] = exchange.output_tokens_max
    if exchange.attempts:
        decision["attempts"] = exchange.attempts
    return decision

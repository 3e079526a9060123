"""Closing stage, record: the usage record into the spool, the numbers into the metrics, the line into the access log."""

from time import perf_counter

from ias.gateway.context import Gateway
from ias.gateway.exchange import NEXT, Exchange, Progress
from ias.gateway.record_lines import RecordLines


def record(exchange: Exchange, gateway: Gateway) -> Progress:
    """Write down what happened. Only requests that a backend served are usage."""
    duration_s = perf_counter() - exchange.started
    ttft_s = None if exchange.first_byte_at is None else exchange.first_byte_at - exchange.started
    gateway.metrics.observe(exchange, duration_s, ttft_s)
    if not exchange.was_served or exchange.usage is None:
        gateway.access_log.write(exchange, duration_s, ttft_s)
        return NEXT
    lines = find_lines(exchange)
    occurred_at = gateway.clock.rfc3339()
    gateway.spool.append(lines.usage_record(exchange, occurred_at, duration_s, ttft_s).encode())
    if exchange.error_code is None and not exchange.attempts:
        gateway.access_log.write_served(exchange, lines, occurred_at, duration_s, ttft_s)
    else:
        gateway.access_log.write(exchange, duration_s, ttft_s)
    return NEXT


def find_lines(exchange: Exchange) -> RecordLines:
    """The lines laid out for requests like this one."""
    principal, backend = exchange.principal, exchange.backend
    if principal is None or backend is None:
        raise AssertionError("only served requests have these lines")
    name = (exchange.model, exchange.endpoint.path, backend.id)
    lines = principal.record_lines.get(name)
    if lines is None or lines.price is not exchange.price or lines.plan is not exchange.plan:
        lines = principal.record_lines[name] = RecordLines(exchange)
    return lines

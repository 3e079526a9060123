"""Closing stage, record: the usage record into the spool, the numbers into the metrics, the line into the access log."""

from time import perf_counter

from ias.gateway.clock import format_millis
from ias.gateway.context import Gateway
from ias.gateway.exchange import NEXT, Exchange, Progress
from ias.gateway.record_lines import RecordLines, Timing


def record(exchange: Exchange, gateway: Gateway) -> Progress:
    """Write down what happened. Only requests that a backend served are usage."""
    timing = find_timing(exchange, gateway)
    gateway.metrics.observe(exchange, timing)
    access_log = gateway.access_log
    if not exchange.was_served or exchange.usage is None:
        access_log.write(exchange, timing)
        gateway.unserved.note(exchange, timing)
        return NEXT
    lines = find_lines(exchange)
    gateway.spool.append(lines.usage_record(exchange, timing).encode())
    if exchange.error_code is None and not exchange.attempts:
        access_log.write_served(exchange, lines, timing)
    else:
        access_log.write(exchange, timing)
    return NEXT


def find_timing(exchange: Exchange, gateway: Gateway) -> Timing:
    """How long it took until now, and to its first byte."""
    started, first_byte_at = exchange.started, exchange.first_byte_at
    ttft_s: float | None
    ttft_ms: str | None
    if first_byte_at is not None and not exchange.streamed:  # it went out at once: its first byte was its end
        ttft_s = duration_s = first_byte_at - started
        ttft_ms = duration_ms = format_millis(duration_s)
    else:
        duration_s = perf_counter() - started
        duration_ms = format_millis(duration_s)
        ttft_s = None if first_byte_at is None else first_byte_at - started
        ttft_ms = None if ttft_s is None else format_millis(ttft_s)
    return Timing(gateway.clock.rfc3339(exchange.made_at + duration_s), duration_s, duration_ms, ttft_s, ttft_ms)


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

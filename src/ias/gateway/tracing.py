"""Traces of requests, when an OTLP endpoint is set: a span per request and below it one per stage, named like the stage.

Imported only then: OpenTelemetry's exporter would double a worker's memory. Nothing here runs for a request otherwise.
Attribute names follow OpenTelemetry's semantic conventions for HTTP and for generative AI.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ias.gateway.exchange import Exchange
from ias.gateway.settings import GatewaySettings
from ias.kit.telemetry import close_tracing, open_tracing

if TYPE_CHECKING:
    from ias.gateway.exchange import Stage


@dataclass(slots=True)
class Trace:
    """A request's span, and when each of its stages began (Unix nanoseconds)."""

    span: Span
    stages: list[tuple[str, int]] = field(default_factory=list)


class Tracing:
    """Makes the spans of one worker's requests."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._provider = open_tracing("gateway", settings)
        self._tracer = self._provider.get_tracer("ias.gateway")
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, exchange: Exchange, stages: "Iterable[Stage]") -> "Iterator[Stage]":
        """Open the request's span, below the caller's when it sent one; gives the stages, watched."""
        headers = exchange.request.headers
        carrier = {
            name: headers[name.encode()].decode("latin-1")
            for name in ("traceparent", "tracestate")
            if name.encode() in headers
        }
        span = self._tracer.start_span(
            exchange.endpoint.name or "unknown",
            context=self._propagator.extract(carrier),
            kind=SpanKind.SERVER,
        )
        exchange.trace = Trace(span)
        return self.watch(exchange, stages)

    def watch(self, exchange: Exchange, stages: "Iterable[Stage]") -> "Iterator[Stage]":
        """The stages, noting when each begins. A stage ends where the next one begins, so what it waited for is its own."""
        for stage in stages:
            if exchange.trace is not None:
                exchange.trace.stages.append((_name_of(stage), time.time_ns()))
            yield stage

    def traceparent(self, exchange: Exchange) -> bytes:
        """The header line that makes the backend's span a child of ours."""
        carrier: dict[str, str] = {}
        if exchange.trace is not None:
            self._propagator.inject(carrier, context=trace.set_span_in_context(exchange.trace.span))
        return "".join(f"{name}: {value}\r\n" for name, value in carrier.items()).encode()

    def end(self, exchange: Exchange) -> None:
        """Close the spans. The caller's key and prompt are in none of them."""
        current = exchange.trace
        if current is None:
            return
        now = time.time_ns()
        context = trace.set_span_in_context(current.span)
        for index, (name, started) in enumerate(current.stages):
            ended = current.stages[index + 1][1] if index + 1 < len(current.stages) else now
            self._tracer.start_span(name, context=context, start_time=started).end(ended)
        span = current.span
        span.set_attributes(_describe(exchange))
        if exchange.status >= 500:
            span.set_status(Status(StatusCode.ERROR, exchange.error_code))
        span.end(now)

    def close(self) -> None:
        """Send what is waiting."""
        close_tracing(self._provider)


def _name_of(stage: "Stage") -> str:
    return str(getattr(stage, "__name__", stage))


def _describe(exchange: Exchange) -> dict[str, str | int]:
    described: dict[str, str | int] = {
        "http.request.method": exchange.request.method,
        "http.response.status_code": exchange.status,
        "ias.request_id": exchange.request_id,
        "ias.outcome": exchange.outcome,
    }
    if exchange.principal is not None:
        described["ias.org_id"] = exchange.principal.key.org_id
        described["ias.project_id"] = exchange.principal.key.project_id
    if exchange.model:
        described["gen_ai.operation.name"] = exchange.endpoint.name
        described["gen_ai.request.model"] = exchange.model
    if exchange.backend is not None:
        described["ias.backend_id"] = exchange.backend.id
    if exchange.usage is not None:
        described["gen_ai.usage.input_tokens"] = exchange.usage.input_tokens
        described["gen_ai.usage.output_tokens"] = exchange.usage.output_tokens
    return described

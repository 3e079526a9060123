"""Traces: OpenTelemetry, off unless `IAS_OTLP_ENDPOINT` is set. W3C trace context comes in and goes out by header."""

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import NoOpTracerProvider
from opentelemetry.trace import TracerProvider as AnyTracerProvider

from ias.kit.settings import ProcessSettings


def open_tracing(process: str, settings: ProcessSettings) -> AnyTracerProvider:
    """A tracer provider for the process: one that exports in batches, or one that does nothing."""
    if settings.otlp_endpoint is None:
        return NoOpTracerProvider()
    provider = TracerProvider(resource=Resource.create({"service.name": f"ias-{process}"}))
    exporter = OTLPSpanExporter(endpoint=f"{settings.otlp_endpoint.rstrip('/')}/v1/traces", timeout=5)
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=4096))
    return provider


def close_tracing(provider: AnyTracerProvider) -> None:
    """Send what is waiting; bounded by the exporter's own deadline."""
    if isinstance(provider, TracerProvider):
        provider.shutdown()


def trace_id_of(span: trace.Span) -> str | None:
    """The trace id in hexadecimal, for logs; None when nothing is traced."""
    context = span.get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None

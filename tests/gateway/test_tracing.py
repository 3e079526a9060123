"""Traces: off without an endpoint; with one, a span per request and below it one per stage, in the caller's own trace."""

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.gateway.conftest import StartGateway
from tests.gateway.platform import Pushed
from tests.gateway.raw_client import ask, chat
from tests.gateway.scripted_upstream import ScriptedUpstream

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"


class Collector(ThreadingHTTPServer):
    """What a collector does: takes spans over OTLP/HTTP."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Take)
        self.spans: list[Span] = []


class _Take(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.server.spans.extend(scope.spans)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


async def test_a_request_is_a_span_with_its_stages_below_it_in_the_callers_trace(
    start_gateway: StartGateway, pushed: Pushed, upstream: ScriptedUpstream, collector: Collector
) -> None:
    await pushed.everything(upstream.url)
    gateway = await start_gateway(otlp_endpoint=f"http://127.0.0.1:{collector.server_address[1]}")
    await gateway.until_ready()
    caller = {"traceparent": f"00-{TRACE_ID}-{CALLER}-01"}
    answer = await ask(gateway.port, chat(), key=pushed.key, headers=caller)
    assert answer.status == 200
    tracing = gateway.worker.gateway.tracing
    assert tracing is not None
    await asyncio.to_thread(tracing.close)

    spans = [span for span in collector.spans if span.trace_id.hex() == TRACE_ID]
    (request,) = [span for span in spans if span.parent_span_id.hex() == CALLER]
    stages = sorted(
        (span for span in spans if span.parent_span_id == request.span_id), key=lambda span: span.start_time_unix_nano
    )
    assert request.name == "chat_completions"
    assert [span.name for span in stages] == [
        "dispatch", "authenticate", "receive", "authorize", "admit", "route", "relay", "settle", "record"
    ]  # fmt: skip
    described = {attribute.key: attribute.value for attribute in request.attributes}
    assert described["gen_ai.request.model"].string_value == "m"
    assert described["gen_ai.usage.output_tokens"].int_value > 0
    assert described["ias.request_id"].string_value == answer.headers["x-request-id"]
    assert pushed.key not in str(spans)
    (sent,) = upstream.received
    assert sent.headers["traceparent"].split("-")[1:3] == [TRACE_ID, request.span_id.hex()]


async def test_without_an_endpoint_nothing_is_traced(
    start_gateway: StartGateway, pushed: Pushed, upstream: ScriptedUpstream
) -> None:
    await pushed.everything(upstream.url)
    gateway = await start_gateway()
    await gateway.until_ready()
    answer = await ask(gateway.port, chat(), key=pushed.key, headers={"traceparent": f"00-{TRACE_ID}-{CALLER}-01"})
    assert answer.status == 200
    assert gateway.worker.gateway.tracing is None
    assert "traceparent" not in upstream.received[0].headers

"""The stages of a request, in order, and what happens when one of them says no.

A stage is a function of the exchange and the worker's parts. It returns NEXT, or WAIT when something else has to happen
first (a reply from Redis, a backend's answer); whoever brings that about calls `exchange.resume()`. No task is made
for a request: everything runs in the event loop's callbacks.
"""

import structlog

from ias.gateway.admit import admit
from ias.gateway.authenticate import authenticate
from ias.gateway.authorize import authorize
from ias.gateway.context import Gateway
from ias.gateway.deployments import name_model
from ias.gateway.dispatch import dispatch
from ias.gateway.endpoints import (
    DEPLOYMENT_CHAT_COMPLETIONS,
    DEPLOYMENT_COMPLETIONS,
    DEPLOYMENT_EMBEDDINGS,
    HEALTH,
    MODEL,
    MODELS,
    READY,
    Endpoint,
    find_endpoint,
)
from ias.gateway.errors import Refusal, internal
from ias.gateway.exchange import WAIT, Client, Exchange, Plan, Request, Stage
from ias.gateway.list_models import list_models
from ias.gateway.operations import answer_health, answer_options, answer_ready
from ias.gateway.receive import receive
from ias.gateway.record import record
from ias.gateway.relay import relay
from ias.gateway.replay import replay
from ias.gateway.route import route
from ias.gateway.settle import settle

INFERENCE: tuple[Stage, ...] = (dispatch, authenticate, receive, authorize, admit, route, relay)
_IN_DEPLOYMENTS: tuple[Stage, ...] = (dispatch, authenticate, receive, name_model, authorize, admit, route, relay)
CLOSING: tuple[Stage, ...] = (settle, record)
"""Run once for every request, however it ended."""

_OTHERS: dict[Endpoint, tuple[Stage, ...]] = {
    DEPLOYMENT_CHAT_COMPLETIONS: _IN_DEPLOYMENTS,
    DEPLOYMENT_COMPLETIONS: _IN_DEPLOYMENTS,
    DEPLOYMENT_EMBEDDINGS: _IN_DEPLOYMENTS,
    MODELS: (dispatch, authenticate, list_models),
    MODEL: (dispatch, authenticate, list_models),
    HEALTH: (dispatch, answer_health),
    READY: (dispatch, answer_ready),
}

_CLIENT_LEFT = 499
"""The status recorded for a client that did not wait for its answer."""

log = structlog.get_logger("ias.gateway.pipeline")


class Pipeline:
    """Takes one worker's requests through their stages."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    def begin(self, request: Request, client: Client) -> Exchange:
        """Take a request whose head is complete through its stages."""
        gateway = self.gateway
        plan = request.notes.plan
        if plan is None:
            plan = request.notes.plan = _plan(request)
        exchange = Exchange(self, request, client, gateway.request_ids.make())
        exchange.endpoint, stages = plan
        tracing = gateway.tracing
        exchange.stages = iter(stages) if tracing is None else tracing.begin(exchange, stages)
        gateway.metrics.in_flight += 1
        self.advance(exchange)
        return exchange

    def advance(self, exchange: Exchange) -> None:
        """Go on until a stage waits or the request is over."""
        if exchange.is_over:
            return
        gateway = self.gateway
        try:
            continuation = exchange.continuation
            if continuation is not None:
                exchange.continuation = None
                if continuation(exchange, gateway) is WAIT:
                    return
            for stage in exchange.stages:
                if stage(exchange, gateway) is WAIT:
                    return
        except Refusal as refusal:
            _refuse(exchange, refusal)
        except Exception:  # a fault in one request must not take down the others' worker
            log.exception("request_failed", request_id=exchange.request_id)
            gateway.metrics.internal_errors += 1
            _refuse(exchange, internal())
        self._close(exchange)

    def refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        """End an exchange with an error that was found outside its stages."""
        if not exchange.is_over:
            _refuse(exchange, refusal)
            self._close(exchange)

    def refuse_protocol(self, refusal: Refusal) -> None:
        """Count a refusal below the level of requests."""
        self.gateway.metrics.count_refusal(refusal.code or f"http_{refusal.status}")

    def abandon(self, exchange: Exchange) -> None:
        """The client has left: stop the backend, settle what was used."""
        if exchange.is_over:
            return
        exchange.is_gone = True
        if exchange.relay is not None:
            exchange.relay.abort("client_gone")
        exchange.outcome = "cancelled"
        exchange.status = exchange.status or _CLIENT_LEFT
        self._close(exchange)

    def _close(self, exchange: Exchange) -> None:
        gateway = self.gateway
        exchange.is_over = True
        gateway.metrics.in_flight -= 1
        try:
            tracing = gateway.tracing
            for stage in CLOSING if tracing is None else tracing.watch(exchange, CLOSING):
                stage(exchange, gateway)
            if tracing is not None:
                tracing.end(exchange)
        except Exception:  # the connection must go on to its next request whatever the books say
            log.exception("closing_failed", request_id=exchange.request_id)
            gateway.metrics.internal_errors += 1
        exchange.relay = None  # it holds the exchange: cycles wait for the garbage collector
        exchange.client.exchange_over()


def _plan(request: Request) -> Plan:
    endpoint = find_endpoint(request.path.partition(b"?")[0])
    return Plan(endpoint, _stages(request, endpoint))


def _stages(request: Request, endpoint: Endpoint) -> tuple[Stage, ...]:
    if request.method == "OPTIONS":
        return (answer_options,)
    stages = _OTHERS.get(endpoint, INFERENCE)
    if b"idempotency-key" in request.headers and endpoint.is_inference:
        before = stages.index(admit)
        return (*stages[:before], replay, *stages[before:])
    return stages


def _refuse(exchange: Exchange, refusal: Refusal) -> None:
    exchange.error_code = refusal.code or refusal.kind
    exchange.denied_by = refusal.denied_by
    if exchange.is_gone:
        return
    if exchange.status:  # the answer has begun: all that is left is to cut it
        exchange.client.abort()
        return
    exchange.answer(refusal.status, refusal.body(), headers=refusal.headers)

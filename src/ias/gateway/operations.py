"""/health and /ready: for the platform's operators, without a key. Not exposed by an Ingress."""

import msgspec

from ias.gateway.context import Gateway
from ias.gateway.exchange import NEXT, Exchange, Progress


def answer_health(exchange: Exchange, gateway: Gateway) -> Progress:
    """200 for as long as the event loop turns."""
    del gateway
    exchange.outcome = "completed"
    exchange.answer(200, b'{"status":"ok"}')
    return NEXT


def answer_ready(exchange: Exchange, gateway: Gateway) -> Progress:
    """200 when requests can be served, else 503; either way with what is there and what is away."""
    checks = check_dependencies(gateway)
    is_ready = all(checks.values())
    exchange.outcome = "completed"
    body = {
        "status": "ready" if is_ready else "not_ready",
        "checks": {name: "ok" if there else "away" for name, there in checks.items()},
    }
    exchange.answer(200 if is_ready else 503, msgspec.json.encode(body))
    return NEXT


def check_dependencies(gateway: Gateway) -> dict[str, bool]:
    """What serving depends on, and whether it is there."""
    return {
        "redis": gateway.redis.is_ready,
        "routes": gateway.snapshots.routes is not None,
        "prices": gateway.snapshots.prices is not None,
        "counters": gateway.snapshots.counters_ready,
        "spool": not gateway.spool.is_full,
        "accepting": not gateway.is_draining,
    }


def answer_options(exchange: Exchange, gateway: Gateway) -> Progress:
    """OPTIONS on any URL: the methods, and for a browser's preflight what it may send. The connection adds the origin."""
    headers = b"allow: %b\r\n" % exchange.endpoint.allow.encode()
    if gateway.settings.gateway_cors_origins:
        asked = exchange.request.headers.get(b"access-control-request-headers", b"authorization, content-type")
        headers += (
            b"access-control-allow-methods: %b\r\naccess-control-allow-headers: %b\r\naccess-control-max-age: 600\r\n"
            % (exchange.endpoint.allow.encode(), asked)
        )
    exchange.outcome = "completed"
    exchange.answer(200, b"", headers=headers)
    return NEXT

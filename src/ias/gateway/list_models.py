"""GET /v1/models and /v1/models/{id}: the models the key may use, and no trace of others."""

from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from ias.contracts.routes import ModelRoute
from ias.gateway.authorize import check_key_limits, find_route
from ias.gateway.context import Gateway
from ias.gateway.deprecation import render_notice
from ias.gateway.endpoints import MODEL, model_in_path
from ias.gateway.errors import redis_away, unavailable
from ias.gateway.exchange import NEXT, Exchange, Progress
from ias.gateway.snapshots import Principal


def list_models(exchange: Exchange, gateway: Gateway) -> Progress:
    """Answer with one model or all."""
    principal = exchange.principal
    if principal is None:
        raise AssertionError("listing needs a caller")
    check_key_limits(exchange, principal, gateway)
    document: dict[str, Any]
    if exchange.endpoint is MODEL:
        name = unquote_to_bytes(model_in_path(exchange.request.path.partition(b"?")[0])).decode("utf-8", "replace")
        route = find_route(name, principal, exchange.made_at, gateway)
        exchange.notice = render_notice(route)
        document = describe(route)
    else:
        table = gateway.snapshots.routes
        if table is None:
            raise (
                redis_away()
                if not gateway.redis.is_ready
                else unavailable("No models are known yet.", "routes_unknown")
            )
        routes = {route.name: route for route in table.models.values() if _may_see(principal, route, exchange.made_at)}
        document = {"object": "list", "data": [describe(routes[name]) for name in sorted(routes)]}
    exchange.outcome = "completed"
    exchange.answer(200, msgspec.json.encode(document))
    return NEXT


def _may_see(principal: Principal, route: ModelRoute, now: float) -> bool:
    return (
        any(principal.may_use(name) for name in (route.name, *route.aliases))
        and (route.org_ids is None or principal.key.org_id in route.org_ids)
        and (route.sunset_at is None or route.sunset_at > now)
    )


def describe(route: ModelRoute) -> dict[str, Any]:
    """OpenAI's model object, with vLLM's `max_model_len`, and what there is to say of aliases, capabilities and its end."""
    more = {
        "aliases": route.aliases,
        "capabilities": route.capabilities,
        "deprecated_at": route.deprecated_at,
        "sunset_at": route.sunset_at,
        "replacement": route.replacement,
    }
    return {
        "id": route.name,
        "object": "model",
        "created": route.created,
        "owned_by": "ias",
        "max_model_len": route.context_length,
        **{name: value for name, value in more.items() if value},
    }

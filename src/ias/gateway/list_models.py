"""GET /v1/models and /v1/models/{id}: the models the key may use, and no trace of others."""

from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from ias.contracts.routes import ModelRoute
from ias.gateway.authorize import check_key_limits, find_route
from ias.gateway.context import Gateway
from ias.gateway.endpoints import MODEL, model_in_path
from ias.gateway.errors import redis_away, unavailable
from ias.gateway.exchange import NEXT, Exchange, Progress


def list_models(exchange: Exchange, gateway: Gateway) -> Progress:
    """Answer with one model or all."""
    principal = exchange.principal
    if principal is None:
        raise AssertionError("listing needs a caller")
    check_key_limits(exchange, principal, gateway)
    document: dict[str, Any]
    if exchange.endpoint is MODEL:
        name = unquote_to_bytes(model_in_path(exchange.request.path.partition(b"?")[0])).decode("utf-8", "replace")
        document = describe(find_route(name, principal, gateway))
    else:
        table = gateway.snapshots.routes
        if table is None:
            raise (
                redis_away()
                if not gateway.redis.is_ready
                else unavailable("No models are known yet.", "routes_unknown")
            )
        routes = [route for name, route in table.models.items() if principal.may_use(name)]
        document = {"object": "list", "data": [describe(route) for route in sorted(routes, key=lambda r: r.name)]}
    exchange.outcome = "completed"
    exchange.answer(200, msgspec.json.encode(document))
    return NEXT


def describe(route: ModelRoute) -> dict[str, Any]:
    """OpenAI's model object, with vLLM's `max_model_len`."""
    return {
        "id": route.name,
        "object": "model",
        "created": route.created,
        "owned_by": "ias",
        "max_model_len": route.context_length,
    }

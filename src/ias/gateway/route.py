"""Stage 5, route: which backend?"""

from ias.gateway.context import Gateway
from ias.gateway.errors import unavailable
from ias.gateway.exchange import NEXT, Exchange, Progress


def route(exchange: Exchange, gateway: Gateway) -> Progress:
    """Set `backend`."""
    backend = gateway.router.pick(exchange.route, tried=())
    if backend is None:
        raise unavailable(f"No server for the model `{exchange.model}` is available.", "no_backend_available")
    exchange.backend = backend
    return NEXT

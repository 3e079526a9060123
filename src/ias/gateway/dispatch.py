"""Stage 0, dispatch: is there such an endpoint, and does it take this method?"""

from ias.gateway.context import Gateway
from ias.gateway.endpoints import UNKNOWN
from ias.gateway.errors import unavailable, unknown_url, wrong_method
from ias.gateway.exchange import NEXT, Exchange, Progress


def dispatch(exchange: Exchange, gateway: Gateway) -> Progress:
    """Refuse unknown URLs (404), wrong methods (405), and new inference while the worker drains (503)."""
    endpoint, request = exchange.endpoint, exchange.request
    if endpoint is UNKNOWN:
        raise unknown_url(request.method, request.path.partition(b"?")[0].decode("latin-1"))
    if request.method not in endpoint.methods:
        raise wrong_method(request.method, endpoint.path, endpoint.allow)
    if gateway.is_draining and endpoint.is_inference:
        raise unavailable("The server is restarting.", "draining")
    return NEXT

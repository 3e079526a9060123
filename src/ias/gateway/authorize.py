"""Stage 3, authorize: what is asked for, and may the caller have it?"""

import ipaddress

from ias.contracts.routes import ModelRoute
from ias.gateway.context import Gateway
from ias.gateway.deprecation import render_notice
from ias.gateway.endpoints import Endpoint
from ias.gateway.errors import (
    key_not_usable,
    model_forbidden,
    model_not_found,
    model_retired,
    model_unsuitable,
    redis_away,
    unavailable,
)
from ias.gateway.exchange import NEXT, Exchange, Progress, Request
from ias.gateway.known_body import KnownBody
from ias.gateway.peek import ChatPeek
from ias.gateway.read_body import Reading, read_body
from ias.gateway.snapshots import Principal


def authorize(exchange: Exchange, gateway: Gateway) -> Progress:
    """Set what was asked for (`reading`, `peek`, `model`, `route`, `streamed`); refuse what the key may not have."""
    endpoint = exchange.endpoint
    principal = exchange.principal
    if principal is None:
        raise AssertionError("authorize needs a caller")
    reading = exchange.reading = _read(exchange.request, endpoint)
    if principal.is_limited:
        check_key_limits(exchange, principal, gateway)
    exchange.peek = reading.peek
    exchange.route = route = find_route(reading.model, principal, exchange.made_at, gateway)
    exchange.model = route.name
    if route.capabilities and endpoint.capability not in route.capabilities:
        raise model_unsuitable(reading.model, endpoint.path)
    if route.deprecated_at is not None:
        exchange.notice = render_notice(route)
    exchange.streamed = reading.streamed
    return NEXT


def _read(request: Request, endpoint: Endpoint) -> Reading:
    """The body as far as the gateway acts on it; by its shape, where the last one under the same head had the same."""
    body, notes = request.body, request.notes
    known = notes.known_body
    if known is not None and known.fits(body):
        return known.reading
    reading = read_body(body, endpoint)
    if request.is_repeat and notes.lessons_left and type(reading.peek) is ChatPeek:
        notes.lessons_left -= 1
        notes.known_body = KnownBody.learn(body, endpoint) or known
    return reading


def check_key_limits(exchange: Exchange, principal: Principal, gateway: Gateway) -> None:
    """The endpoints and addresses that the key is limited to.

    Raises:
        Refusal: 403.
    """
    scopes = principal.key.scopes
    if scopes is not None and exchange.endpoint.name not in scopes:
        raise key_not_usable(
            f"You have insufficient permissions for this operation. Missing scopes: {exchange.endpoint.name}.",
            "insufficient_permissions",
        )
    if principal.networks:
        address = ipaddress.ip_address(client_address(exchange, gateway))
        if not all(any(address in network for network in networks) for networks in principal.networks):
            raise key_not_usable("Your IP address is not allowed to use this API key.", "ip_not_authorized")


def client_address(exchange: Exchange, gateway: Gateway) -> str:
    """The address the request came from: the last one in X-Forwarded-For that no trusted proxy of ours owns."""
    peer = exchange.client.peer_address
    forwarded = exchange.request.headers.get(b"x-forwarded-for")
    trusted = [ipaddress.ip_network(network) for network in gateway.settings.gateway_trusted_proxies]
    if forwarded is None or not trusted:
        return peer
    hops = [*(hop.strip() for hop in forwarded.decode("latin-1").split(",")), peer]
    for hop in reversed(hops):
        try:
            address = ipaddress.ip_address(hop)
        except ValueError:
            return peer
        if not any(address in network for network in trusted):
            return hop
    return hops[0]


def find_route(model: str, principal: Principal, now: float, gateway: Gateway) -> ModelRoute:
    """The route of a model, by its name or an alias, that the caller may use. `now` is in Unix seconds.

    Raises:
        Refusal: 404 for a model that is not there, or not for the caller's org; 403 for one that only the key, or its project,
            may not use; 503 while no routes are known.
    """
    table = gateway.snapshots.routes
    if table is None:
        raise redis_away() if not gateway.redis.is_ready else unavailable("No models are known yet.", "routes_unknown")
    route = table.models.get(model)
    if route is None or (route.org_ids is not None and principal.key.org_id not in route.org_ids):
        raise model_not_found(model)
    if not (principal.may_use(route.name) or principal.may_use(model)):
        raise model_forbidden(model) if principal.org_may_use(route.name, model) else model_not_found(model)
    if route.sunset_at is not None and route.sunset_at <= now:
        raise model_retired(model, route.replacement)
    return route

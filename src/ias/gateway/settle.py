"""Closing stage, settle: what did it use, and what did that cost? Runs once for every request, whoever left in the meantime."""

from ias.gateway.context import Gateway
from ias.gateway.exchange import NEXT, Exchange, Progress


def settle(exchange: Exchange, gateway: Gateway) -> Progress:
    """Set the cost; replace the reservation by it. What was not served costs nothing."""
    usage, price = exchange.usage, exchange.price
    if usage is not None and price is not None:
        exchange.cost_nano_usd = price.cost(
            input_tokens=usage.input_tokens,
            cached_input_tokens=usage.cached_input_tokens,
            output_tokens=usage.output_tokens,
        )
    if exchange.ask is not None:
        _leave(exchange, gateway)
    if not exchange.may_hold_reservation or exchange.principal is None:
        return NEXT
    exchange.may_hold_reservation = False
    if exchange.cost_nano_usd > exchange.reserved_nano_usd:
        gateway.metrics.reservations_exceeded += 1
    tokens = 0 if usage is None else usage.input_tokens + usage.output_tokens
    gateway.settlements.settle(exchange.principal.key.org_id, exchange.request_id, exchange.cost_nano_usd, tokens)
    return NEXT


def _leave(exchange: Exchange, gateway: Gateway) -> None:
    """Give back the place, or leave the queue."""
    desk, ask, usage = exchange.desk, exchange.ask, exchange.usage
    if desk is None or ask is None:
        return
    if exchange.waiting is not None:
        gateway.routers.leave(desk, exchange.waiting)
    if exchange.place is not None:
        gateway.routers.release(desk, ask, exchange.place, usage)

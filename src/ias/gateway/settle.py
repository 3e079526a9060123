"""Closing stage, settle: what did it use, and what did that cost? Runs once for every request, whoever left in the meantime."""

from ias.contracts.money import cost_nano_usd
from ias.contracts.spending import Price
from ias.gateway.admission_plan import pack_restore
from ias.gateway.admit import find_lifetime_s
from ias.gateway.context import Gateway
from ias.gateway.exchange import NEXT, Exchange, Progress
from ias.gateway.token_counts import TokenCounts


def settle(exchange: Exchange, gateway: Gateway) -> Progress:
    """Set the cost; replace the reservation by it. What was not served costs nothing."""
    usage, price = exchange.usage, exchange.price
    if usage is not None and price is not None:
        exchange.cost_nano_usd = cost_of(usage, price)
    if exchange.ask is not None:
        _leave(exchange, gateway)
    if exchange.is_unguarded and exchange.principal is not None:
        unused = exchange.reserved_nano_usd - exchange.cost_nano_usd
        gateway.unguarded.give_back(exchange.principal.key.org_id, unused)
    if not exchange.may_hold_reservation or exchange.principal is None:
        return NEXT
    exchange.may_hold_reservation = False
    if exchange.cost_nano_usd > exchange.reserved_nano_usd:
        gateway.metrics.reservations_exceeded += 1
    tokens = 0 if usage is None else usage.input_tokens + usage.output_tokens
    org_id, request_id, cost = exchange.principal.key.org_id, exchange.request_id, exchange.cost_nano_usd
    if exchange.is_unguarded and exchange.plan is not None:
        hold = pack_restore(exchange.plan, org_id, request_id, cost, find_lifetime_s(gateway))
        gateway.settlements.settle_unguarded(hold, org_id, request_id, cost, tokens)
    else:
        gateway.settlements.settle(org_id, request_id, cost, tokens)
    return NEXT


def cost_of(usage: TokenCounts, price: Price) -> int:
    """Nano-USD of what was used, at a price."""
    return cost_nano_usd(
        price,
        input_tokens=usage.input_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        output_tokens=usage.output_tokens,
    )


def _leave(exchange: Exchange, gateway: Gateway) -> None:
    """Give back the place, or leave the queue."""
    desk, ask, usage = exchange.desk, exchange.ask, exchange.usage
    if desk is None or ask is None:
        return
    if exchange.waiting is not None:
        gateway.routers.leave(desk, exchange.waiting)
    if exchange.place is not None:
        gateway.routers.release(desk, ask, exchange.place, usage)

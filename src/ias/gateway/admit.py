"""Stage 4, admit: do all rate limits let the request in, and can every budget bear the worst that it may cost?

One script asks all ceilings in scope and counts the request in all of them, or in none. Where the worst case does not fit a
budget, the output limit is lowered to what does; where nothing fits, the request is refused. Settlement replaces the worst
case by the real cost, and the tokens that were expected by those that were used.
"""

from typing import Any, Final

from ias.contracts.money import TOKENS_PER_PRICE
from ias.contracts.spending import Price, find_in_force
from ias.gateway.budget_refusals import over_budget
from ias.gateway.context import Gateway
from ias.gateway.errors import model_unpriced, redis_away, unavailable
from ias.gateway.exchange import NEXT, WAIT, Exchange, Progress
from ias.gateway.rate_limits import limit_headers, over_limit
from ias.gateway.redis_connection import RedisAwayError
from ias.gateway.snapshots import Principal

_TRIES_MAX: Final = 4
_RESERVATION_MARGIN_S: Final = 60
_BYTES_PER_TOKEN: Final = 4
_TOKENS_OF_A_PAGE: Final = 512
_TEMPLATE_TOKENS: Final = 1024
"""What a chat template may add of its own: a default system text, today's date, role marks."""


def admit(exchange: Exchange, gateway: Gateway) -> Progress:
    """Set `price`; ask the script where budgets or rate limits apply."""
    now = exchange.made_at  # also for a request that midnight overtakes
    principal = exchange.principal
    if principal is None:
        raise AssertionError("admit needs a caller")
    _check_books(gateway, principal)
    price = exchange.price = _find_price(exchange, gateway, principal, now)
    exchange.output_tokens_max = find_output_cap(exchange)
    plan = principal.admission_plan(exchange.model, now)
    if not gateway.snapshots.counters_ready:
        exchange.plan = plan
        return _let_through(exchange, gateway, principal)
    if not plan.limits and (price is None or not plan.budgets):
        return NEXT
    exchange.plan = plan
    return _reserve(exchange, gateway)


def _check_books(gateway: Gateway, principal: Principal) -> None:
    """Nothing is served that could not be accounted for.

    Raises:
        Refusal: 503.
    """
    if not gateway.snapshots.counters_ready:
        if gateway.redis.is_ready:
            raise unavailable("Spending counters are being rebuilt.", "counters_not_ready")
        if principal.unguarded_nano_usd is None:
            raise redis_away()
    if gateway.spool.is_full:
        raise unavailable("Usage cannot be recorded at the moment.", "usage_spool_full")


def _find_price(exchange: Exchange, gateway: Gateway, principal: Principal, now: float) -> Price | None:
    """The org's own price for the model, else everybody's.

    Raises:
        Refusal: there is none, and that is no reason to serve the request for nothing.
    """
    if principal.prices:
        own = find_in_force(principal.prices.get(exchange.model, ()), now)
        if own is not None:
            return own
    prices = gateway.snapshots.prices or gateway.snapshots.last_prices
    price = None if prices is None else find_in_force(prices.prices.get(exchange.model, ()), now)
    if price is None and (principal.unpriced or gateway.settings.gateway_unpriced) == "refuse":
        raise model_unpriced(exchange.model)
    return price


def _let_through(exchange: Exchange, gateway: Gateway, principal: Principal) -> Progress:
    """Redis is away, and the org has said what may be let through in the meantime.

    Raises:
        Refusal: 503, nothing is left of that, or nobody can say what the request would cost.
    """
    price, plan = exchange.price, exchange.plan
    amount = 0 if price is None else bound_cost(exchange, price)
    if price is None or plan is None:
        raise redis_away()
    if not gateway.unguarded.take(principal.key.org_id, amount, principal.unguarded_nano_usd):
        raise redis_away()
    exchange.is_unguarded = True
    exchange.reserved_nano_usd = amount
    exchange.may_hold_reservation = bool(plan.budgets)
    return NEXT


# ------------------------------------------------------------------ the worst case


def find_output_cap(exchange: Exchange) -> int | None:
    """The model's own output limit where the client asked for more or for no limit; None leaves the request's."""
    cap = exchange.route.output_tokens_max
    if cap is None or exchange.endpoint.output_limit is None:
        return None
    requested = exchange.reading.output_tokens
    return cap if requested is None or requested > cap else None


def bound_input_tokens(exchange: Exchange) -> int:
    """No fewer than the engine will count: a token is at least one byte of the body."""
    reading, body = exchange.reading, exchange.request.body
    context_length = exchange.route.context_length
    size = len(body) + _TEMPLATE_TOKENS
    if reading.uses_tools:
        size += len(body)  # templates print tools with white space of their own
    if reading.replaces_template or reading.has_foreign_content:
        size = context_length
    if exchange.endpoint.output_limit is None:  # embeddings: many inputs, each as long as the context
        return size
    longest = context_length * reading.prompts
    return min(longest, size)


def bound_output_tokens(exchange: Exchange) -> int:
    """No fewer than the engine may make, over all choices."""
    if exchange.endpoint.output_limit is None:
        return 0
    limit = exchange.output_tokens_max or exchange.reading.output_tokens or exchange.route.context_length
    return min(limit, exchange.route.context_length) * exchange.reading.choices


def bound_cost(exchange: Exchange, price: Price) -> int:
    """Nano-USD that the request cannot exceed. Cached input is assumed at whichever price is higher."""
    input_price = max(price.input_nano_usd_per_million, price.cached_input_nano_usd_per_million)
    total = (
        bound_input_tokens(exchange) * input_price + bound_output_tokens(exchange) * price.output_nano_usd_per_million
    )
    return price.request_nano_usd - (-total // TOKENS_PER_PRICE)


# ------------------------------------------------------------------ what is to be expected


def expect_tokens(exchange: Exchange) -> int:
    """Tokens that the request will probably use; settlement corrects it.

    Not the worst case, which would let few requests in at a time: a token is four bytes, content other than text counts as a page
    of it, and output is what the client allows for, or a page where it sets no limit.
    """
    reading = exchange.reading
    tokens = _TOKENS_OF_A_PAGE if reading.has_foreign_content else -(-len(exchange.request.body) // _BYTES_PER_TOKEN)
    if exchange.endpoint.output_limit is None:
        return tokens
    limit = reading.output_tokens
    if limit is None:
        limit = _TOKENS_OF_A_PAGE
    if exchange.output_tokens_max is not None:
        limit = min(limit, exchange.output_tokens_max)
    context_length = exchange.route.context_length
    return min(tokens, context_length * reading.prompts) + min(limit, context_length) * reading.choices


# ------------------------------------------------------------------ reserving it


def _reserve(exchange: Exchange, gateway: Gateway) -> Progress:
    plan, price = exchange.plan, exchange.price
    if plan is None:
        raise AssertionError("reserving needs a plan")
    amount = exchange.reserved_nano_usd = bound_cost(exchange, price) if price is not None and plan.budgets else 0
    if amount == 0 and not plan.limits:
        return NEXT
    tokens = exchange.expected_tokens = expect_tokens(exchange) if plan.counts_tokens else 0
    command = plan.call.fill(exchange.request_id.encode(), amount, tokens, find_lifetime_s(gateway))
    try:
        gateway.redis.call(command, _replied, exchange)
    except RedisAwayError as error:
        raise redis_away() from error
    exchange.may_hold_reservation = plan.is_settled
    exchange.reservation_tries += 1
    exchange.continuation = _reserved
    return WAIT


def find_lifetime_s(gateway: Gateway) -> int:
    """How long a reservation is kept: no request lives longer."""
    return int(gateway.settings.gateway_total_timeout_s) + _RESERVATION_MARGIN_S


def _replied(exchange: Exchange, reply: Any) -> None:
    if not exchange.is_over:  # else it was settled right behind this reservation
        exchange.reply = reply
        exchange.resume()


def _reserved(exchange: Exchange, gateway: Gateway) -> Progress:
    """The script's reply: go on, try again with less output, or refuse."""
    reply, exchange.reply = exchange.reply, None
    if isinstance(reply, Exception):
        gateway.metrics.redis_failures += 1
        if "NOSCRIPT" in str(reply):
            gateway.redis.load_scripts()
        raise redis_away() from reply
    plan = exchange.plan
    if plan is None:
        raise AssertionError("a reply needs a plan")
    if reply[0] == 1:
        exchange.remaining_nano_usd = reply[1] if reply[1] >= 0 else None
        if plan.limits:
            exchange.limit_headers = limit_headers(plan.limits, reply[2:])
        return NEXT
    exchange.may_hold_reservation = False
    _, denying, remaining, wait_ms, *counts = reply
    index = denying - 1 - len(plan.budgets)
    if index < 0 and exchange.reservation_tries < _TRIES_MAX and lower_output_limit(exchange, remaining):
        return _reserve(exchange, gateway)
    exchange.limit_headers = limit_headers(plan.limits, counts)
    if index < 0:
        budget, asked = plan.budgets[denying - 1], exchange.reserved_nano_usd
        exchange.remaining_nano_usd = remaining
        raise over_budget(budget, exchange.made_at, asked_nano_usd=asked, left_nano_usd=remaining, wait_ms=wait_ms)
    limit = plan.limits[index]
    gateway.metrics.count_limit_refusal(limit)
    asked = exchange.expected_tokens if limit.metric == "tokens_per_minute" else 1
    raise over_limit(limit, exchange.model, left=remaining, asked=asked, wait_ms=wait_ms)


def lower_output_limit(exchange: Exchange, remaining_nano_usd: int) -> bool:
    """Limit the output to what remains after the input; False when not one token fits."""
    price = exchange.price
    if price is None or exchange.endpoint.output_limit is None or price.output_nano_usd_per_million == 0:
        return False
    input_price = max(price.input_nano_usd_per_million, price.cached_input_nano_usd_per_million)
    left = (remaining_nano_usd - price.request_nano_usd) * TOKENS_PER_PRICE - bound_input_tokens(exchange) * input_price
    tokens = left // (price.output_nano_usd_per_million * exchange.reading.choices)
    if tokens < 1:
        return False
    exchange.output_tokens_max = tokens
    return True

"""A stream that has used up what was reserved for it in a hard budget ends as if the model had reached its limit.

Reservations are for the worst case, so that happens only where a backend makes more than it was told to. It is looked for once a
second, not at every event: a stream that keeps to its limit costs nothing more, and one that does not may go on for a second.
"""

import re

import msgspec

from ias.gateway.admit import bound_output_tokens
from ias.gateway.estimates import estimate_input
from ias.gateway.event_stream import EventStream
from ias.gateway.exchange import Exchange

MESSAGE = "The answer was cut off: it used up what was reserved for it in a budget."
CODE = "budget_exhausted"

_EMPTY_EVENTS_PER_CHOICE = 2
"""One begins a choice, one ends it."""
_SLACK = 16
_ID = re.compile(rb'"id"\s*:\s*"([^"\\]{1,200})"')
_CREATED = re.compile(rb'"created"\s*:\s*([0-9]{1,15})')


def has_run_out(exchange: Exchange, stream: EventStream) -> bool:
    """Whether a hard budget holds the request's reservation, and the backend has made more than that is for.

    By the engine's own count where it reports one as it goes; else by events, of which some carry no token, so with some slack.
    """
    plan = exchange.plan
    if plan is None or not exchange.reserved_nano_usd or all(budget.mode != "hard" for budget in plan.budgets):
        return False
    bound = bound_output_tokens(exchange)
    if stream.events > bound or stream.usage is not None:
        usage = stream.usage
        if usage is not None:
            return usage.output_tokens > bound
        return stream.events - _EMPTY_EVENTS_PER_CHOICE * exchange.reading.choices > bound + bound // 8 + _SLACK
    return False


def closing_events(exchange: Exchange, stream: EventStream, *, with_usage: bool) -> list[bytes]:
    """The last events that the client gets: every choice ends by `length`, and why; then the usage, where it was asked for."""
    first = stream.first_event
    found_id, found_created = _ID.search(first), _CREATED.search(first)
    is_text = b'"text_completion"' in first
    names = {
        "id": found_id[1].decode("utf-8", "replace") if found_id else exchange.request_id,
        "object": "text_completion" if is_text else "chat.completion.chunk",
        "created": int(found_created[1]) if found_created else int(exchange.made_at),
        "model": exchange.model,
    }
    nothing: dict[str, object] = {"text": ""} if is_text else {"delta": {}}
    choices = [{"index": n, **nothing, "finish_reason": "length"} for n in range(exchange.reading.choices)]
    ended = {**names, "choices": choices, "ias": {"code": CODE, "message": MESSAGE}}
    if not with_usage:
        return [msgspec.json.encode(ended)]
    usage = stream.usage
    made = usage.output_tokens if usage is not None else min(stream.events, bound_output_tokens(exchange))
    given = usage.input_tokens if usage is not None else estimate_input(exchange)
    counts = {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
    return [msgspec.json.encode(ended), msgspec.json.encode({**names, "choices": [], "usage": counts})]

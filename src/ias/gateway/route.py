"""Stage 5, route: which backend, and when?

A model with one backend of unknown capacity leaves nothing to decide. Otherwise the request asks for a place, and waits for it
where all that may serve it are full, or have to be woken first.
"""

import time
from typing import Final

import msgspec

from ias.gateway.context import Gateway
from ias.gateway.errors import Refusal
from ias.gateway.exchange import NEXT, WAIT, Exchange, Progress
from ias.gateway.routers import Desk, hash_session
from ias.gateway.routing.asks import PRIORITIES, Ask, Priority
from ias.gateway.routing.loads import Place
from ias.gateway.routing.prefixes import BYTES_PER_TOKEN, name_beginnings


def route(exchange: Exchange, gateway: Gateway) -> Progress:
    """Set `backend`, and `place` where places are counted."""
    desk = exchange.desk = gateway.routers.desk(exchange.route)
    if desk.only is not None:
        exchange.backend = desk.only
        exchange.load = desk.only_load
        exchange.backend_lines = desk.lines[desk.only.id]
        return NEXT
    ask = exchange.ask = make_ask(exchange, desk)
    place = gateway.routers.acquire(desk, ask)
    if place is None:
        exchange.waiting = gateway.routers.wait(desk, ask, QueuedExchange(exchange, desk, gateway))
        return WAIT
    take_place(exchange, desk, place)
    return NEXT


def take_place(exchange: Exchange, desk: Desk, place: Place) -> None:
    """The request goes to this place's backend."""
    load = place.load
    exchange.place, exchange.load = place, load
    exchange.backend = desk.router.backends[load.backend_id]
    exchange.backend_lines = desk.lines[load.backend_id]


class QueuedExchange:
    """A Waiter that has not been at any backend yet."""

    __slots__ = ("_desk", "_exchange", "_gateway")

    def __init__(self, exchange: Exchange, desk: Desk, gateway: Gateway) -> None:
        self._exchange = exchange
        self._desk = desk
        self._gateway = gateway

    def placed(self, place: Place) -> None:
        """See Waiter."""
        exchange = self._exchange
        note_wait(exchange, self._gateway)
        take_place(exchange, self._desk, place)
        exchange.resume()

    def turned_away(self, refusal: Refusal) -> None:
        """See Waiter."""
        exchange = self._exchange
        note_wait(exchange, self._gateway)
        exchange.reply = refusal
        exchange.continuation = _raise_reply
        exchange.resume()


def note_wait(exchange: Exchange, gateway: Gateway) -> None:
    """The request has waited."""
    waiting, exchange.waiting = exchange.waiting, None
    if waiting is not None:
        waited_s = time.monotonic() - waiting.since
        exchange.queue_wait_s += waited_s
        gateway.metrics.observe_queue_wait(exchange.model, waited_s)


def _raise_reply(exchange: Exchange, gateway: Gateway) -> Progress:
    del gateway
    refusal, exchange.reply = exchange.reply, None
    raise refusal


# ------------------------------------------------------------------ what routing wants to know


def make_ask(exchange: Exchange, desk: Desk) -> Ask:
    """The request as routing sees it."""
    principal, body, router = exchange.principal, exchange.request.body, desk.router
    if principal is None:
        raise AssertionError("routing needs a caller")
    limit = exchange.peek.max_tokens or exchange.peek.max_completion_tokens
    expected = int(router.output_tokens)
    ask = Ask(
        principal.key.org_id,
        tokens=len(body) // BYTES_PER_TOKEN,
        output_tokens=limit if isinstance(limit, int) and limit < expected else expected,
        is_streamed=exchange.streamed,
        weight=principal.queue_weight,
    )
    if b"x-ias-priority" in exchange.request.headers:
        ask.priority = find_priority(exchange)
    if router.asks_names:
        ask.names = name_beginnings(body, principal.prompt_salt, exchange.reading.prompt_at)
    if router.asks_session:
        ask.session = find_session(exchange)
    return ask


def find_priority(exchange: Exchange) -> Priority:
    """What `x-ias-priority` says; `normal` where it says nothing that is known."""
    header = exchange.request.headers.get(b"x-ias-priority")
    if header is None:
        return "normal"
    return next((priority for priority in PRIORITIES if priority.encode() == header.strip().lower()), "normal")


class _Named(msgspec.Struct):
    """Who the client says its user is."""

    user: str | None = None


_named_decoder: Final = msgspec.json.Decoder(_Named)


def find_session(exchange: Exchange) -> int | None:
    """A hash of `x-session-id`, or else of the body's own `user`, within the caller's project."""
    principal = exchange.principal
    session: str | bytes | None = exchange.request.headers.get(b"x-session-id")
    if session is None:
        try:
            session = _named_decoder.decode(exchange.request.body).user
        except msgspec.MsgspecError:  # a `user` of another type names nobody
            session = None
    if not session or principal is None:
        return None
    text = session.decode("latin-1") if isinstance(session, bytes) else session
    return hash_session(f"{principal.key.project_id}|{text}")

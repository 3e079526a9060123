"""Stage for requests with an `Idempotency-Key`: what was answered once is not made, and not charged, a second time.

The first request with a key claims it in Redis; its answer takes the claim's place. A repetition gets that answer, 409 while
there is none yet, and 422 when it is another request. Where the first one failed, or its client left before the answer, the
claim is given up and a repetition is served anew. Streams are not repeated: the header means nothing to them.
"""

import contextlib
import hashlib
from functools import partial
from typing import Any

import msgspec

from ias.contracts import redis_keys
from ias.gateway.context import Gateway
from ias.gateway.errors import idempotency_key_in_use, idempotency_key_reused, invalid, redis_away
from ias.gateway.exchange import NEXT, WAIT, Client, Exchange, Progress
from ias.gateway.redis_connection import RedisAwayError, ignore_reply, pack

IDEMPOTENCY_KEY_LENGTH_MAX = 255
_CLAIM_MARGIN_S = 60
_WORTH_REPEATING = frozenset({408, 409, 429})
"""Client errors that time may heal: a repetition should be tried, not told the same."""


class StoredAnswer(msgspec.Struct, frozen=True):
    """What Redis holds for a key, in MessagePack."""

    fingerprint: bytes
    """SHA-256 of method, endpoint and body."""
    request_id: str
    status: int = 0
    """0: there is no answer yet."""
    body: bytes = b""


_decoder = msgspec.msgpack.Decoder(StoredAnswer)
_encode = msgspec.msgpack.Encoder().encode


def replay(exchange: Exchange, gateway: Gateway) -> Progress:
    """Claim the key, or answer with what is stored under it."""
    key = exchange.request.headers[b"idempotency-key"]
    if exchange.streamed or not gateway.settings.gateway_idempotency_window_s:
        return NEXT
    if not 0 < len(key) <= IDEMPOTENCY_KEY_LENGTH_MAX:
        raise invalid(
            f"Invalid 'Idempotency-Key': expected 1 to {IDEMPOTENCY_KEY_LENGTH_MAX} characters.",
            param="idempotency-key",
        )
    principal = exchange.principal
    if principal is None:
        raise AssertionError("a claim needs a caller")
    name = redis_keys.idempotent_answer(principal.key.org_id, principal.key.project_id, hashlib.sha256(key).hexdigest())
    claim = StoredAnswer(_fingerprint(exchange), exchange.request_id)
    lasts_ms = int((gateway.settings.gateway_total_timeout_s + _CLAIM_MARGIN_S) * 1000)
    replies: list[Any] = []
    try:
        gateway.redis.call(pack("SET", name, _encode(claim), "NX", "PX", lasts_ms), _note, replies)
        gateway.redis.call(pack("GET", name), partial(_replied, exchange, gateway, name), replies)
    except RedisAwayError as error:
        raise redis_away() from error
    exchange.continuation = partial(_looked_up, name, claim)
    return WAIT


def _fingerprint(exchange: Exchange) -> bytes:
    head = f"{exchange.request.method} {exchange.endpoint.path}\n".encode()
    return hashlib.sha256(head + exchange.request.body).digest()


def _replied(exchange: Exchange, gateway: Gateway, name: str, replies: list[Any], reply: Any) -> None:
    if not exchange.is_over:
        exchange.reply = (*replies, reply)
        exchange.resume()
    elif replies[0] == b"OK":  # the client has left in the meantime
        _give_up(gateway, name)


def _looked_up(name: str, claim: StoredAnswer, exchange: Exchange, gateway: Gateway) -> Progress:
    """The replies are there: the claim is ours, or somebody's answer is, or nothing yet."""
    (claimed, found), exchange.reply = exchange.reply, None
    if isinstance(claimed, Exception) or isinstance(found, Exception):
        raise redis_away()
    if claimed is not None:
        exchange.client = _Recorder(exchange.client, gateway, name, claim)
        return NEXT
    stored = _read(found)
    if stored is None or (stored.fingerprint == claim.fingerprint and not stored.status):
        raise idempotency_key_in_use()
    if stored.fingerprint != claim.fingerprint:
        raise idempotency_key_reused()
    exchange.outcome = "completed"
    exchange.stages = iter(())
    origin = f"idempotency-replayed: true\r\nx-ias-original-request-id: {stored.request_id}\r\n".encode()
    exchange.answer(stored.status, stored.body, headers=origin)
    return NEXT


def _read(found: Any) -> StoredAnswer | None:
    """None: it expired between the two commands, or another version of the gateway wrote it."""
    try:
        return _decoder.decode(found) if isinstance(found, bytes) else None
    except msgspec.MsgspecError:
        return None


def _give_up(gateway: Gateway, name: str) -> None:
    with contextlib.suppress(RedisAwayError):  # the claim expires by itself
        gateway.redis.call(pack("DEL", name), ignore_reply)


def _note(replies: list[Any], reply: Any) -> None:
    replies.append(reply)


class _Recorder:
    """The Client of a claimed exchange: notes the answer on its way, and stores it when the exchange is over."""

    def __init__(self, client: Client, gateway: Gateway, name: str, claim: StoredAnswer) -> None:
        self.peer_address = client.peer_address
        self._client = client
        self._gateway = gateway
        self._name = name
        self._claim = claim
        self._status = 0
        self._body: bytes | bytearray = b""

    def answer(
        self, status: int, headers: bytes, body: bytes | bytearray, content_type: bytes = b"application/json"
    ) -> None:
        """See Client."""
        self._status, self._body = status, body
        self._client.answer(status, headers, body, content_type)

    def exchange_over(self) -> None:
        """See Client."""
        settings = self._gateway.settings
        is_final = 0 < self._status < 500 and self._status not in _WORTH_REPEATING
        if is_final and len(self._body) <= settings.gateway_idempotency_bytes_max:
            answer = msgspec.structs.replace(self._claim, status=self._status, body=bytes(self._body))
            lasts_ms = int(settings.gateway_idempotency_window_s * 1000)
            with contextlib.suppress(RedisAwayError):  # what is not stored is served anew
                self._gateway.redis.call(pack("SET", self._name, _encode(answer), "PX", lasts_ms), ignore_reply)
        else:
            _give_up(self._gateway, self._name)
        self._client.exchange_over()

    def begin_stream(self, status: int, headers: bytes, first: bytes) -> None:
        """See Client."""
        self._client.begin_stream(status, headers, first)

    def stream(self, data: bytes) -> None:
        """See Client."""
        self._client.stream(data)

    def end_stream(self) -> None:
        """See Client."""
        self._client.end_stream()

    def abort(self) -> None:
        """See Client."""
        self._client.abort()

    def expect_body(self) -> None:
        """See Client."""
        self._client.expect_body()

    @property
    def streams_chunked(self) -> bool:
        """See Client."""
        return self._client.streams_chunked

"""The request a backend gets: the client's body with as few bytes changed as can be, under headers of our own."""

import hashlib
import hmac
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

import msgspec
import structlog
from msgspec import UNSET

from ias.contracts.routes import Backend
from ias.gateway.endpoints import Endpoint
from ias.gateway.exchange import Exchange
from ias.gateway.json_splice import Buffer, edit_object, list_members, prepend_members
from ias.gateway.peek import POLICED, StreamOptions
from ias.gateway.upstream import BackendPool
from ias.kit.sealing import SealBrokenError, Sealer

if TYPE_CHECKING:
    from ias.gateway.tracing import Tracing

log = structlog.get_logger("ias.gateway.upstream")

_NOTHING: Final[frozenset[str]] = frozenset()
_encode: Final = msgspec.json.Encoder().encode


class UpstreamRequests:
    """Builds requests. Heads are made once per backend and endpoint; credentials are unsealed then."""

    def __init__(self, *, sealer: Sealer, salt_key: bytes, salts: bool, tracing: "Tracing | None" = None) -> None:
        self._tracing = tracing
        self._sealer = sealer
        self._salt_key = salt_key
        self._salts = salts
        self._heads: dict[tuple[str, str], tuple[Backend, bytes]] = {}
        self._salt_of_org: dict[str, bytes] = {}

    def head(self, exchange: Exchange, backend: Backend, pool: BackendPool, body_bytes: int) -> bytes:
        """The head. The request id is ours and unique: vLLM names its own work after it.

        It travels as bare hexadecimal, because servers that check the header (llama.cpp's) want a UUID.
        """
        key = (backend.id, exchange.endpoint.name)
        known = self._heads.get(key)
        if known is None or known[0] is not backend:
            known = self._heads[key] = (backend, self._build_head(backend, exchange.endpoint, pool))
        lines = known[1] if self._tracing is None else known[1] + self._tracing.traceparent(exchange)
        return b"%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n" % (
            lines,
            exchange.record_hex.encode(),
            body_bytes,
        )

    def retain(self, backends: Collection[Backend]) -> None:
        """Forget the heads, and with them the credentials, of backends that are not among these."""
        kept = {backend.id for backend in backends}
        self._heads = {key: head for key, head in self._heads.items() if key[0] in kept}

    def plain_head(self, path: str, backend: Backend, pool: BackendPool) -> bytes:
        """The head of a POST of our own, without a body."""
        return self._common_lines(path, backend, pool) + b"content-length: 0\r\n\r\n"

    def _build_head(self, backend: Backend, endpoint: Endpoint, pool: BackendPool) -> bytes:
        return self._common_lines(f"{pool.path}{endpoint.upstream_path.decode()}", backend, pool)

    def _common_lines(self, path: str, backend: Backend, pool: BackendPool) -> bytes:
        lines = [
            f"POST {path} HTTP/1.1",
            f"host: {pool.authority}",
            "content-type: application/json",
            "accept: application/json, text/event-stream",
            "accept-encoding: identity",
            "user-agent: ias-gateway",
        ]
        if backend.sealed_credential is not None:
            try:
                lines.append(f"authorization: Bearer {self._sealer.open(backend.sealed_credential)}")
            except SealBrokenError:
                log.exception("credential_unreadable", backend_id=backend.id)
        return "\r\n".join([*lines, ""]).encode()

    def body(self, exchange: Exchange, backend: Backend) -> Buffer:
        """The body: verbatim when nothing has to change."""
        peek = exchange.peek
        put: dict[str, bytes] = {}
        collides = False
        if backend.upstream_model != exchange.reading.model:
            put["model"] = _encode(backend.upstream_model)
            collides = True
        if exchange.streamed and not exchange.endpoint.has_named_events:
            options = _stream_options(peek.stream_options or None, continuous=backend.continuous_usage)
            if options is not None:
                put["stream_options"] = options
                if peek.stream_options is not UNSET:
                    collides = True
                    put["stream_options"] = _merge(exchange.request.body, options)
        if exchange.output_tokens_max is not None:
            collides = _limit_output(exchange, put) or collides
        if self._salts and backend.vllm_extensions:
            put["cache_salt"] = self._salt(exchange)
        body = exchange.request.body
        policed = exchange.reading.has_policed
        if collides or policed:
            return edit_object(body, put=put, remove=POLICED.difference(put) if policed else _NOTHING)
        if put:
            return prepend_members(body, b"".join([b'"%b":%b,' % (n.encode(), v) for n, v in put.items()]))
        return body

    def _salt(self, exchange: Exchange) -> bytes:
        """A secret of the org's own that its prompts are cached under."""
        if exchange.principal is None:
            raise AssertionError("a salt needs a caller")
        org_id = exchange.principal.key.org_id
        salt = self._salt_of_org.get(org_id)
        if salt is None:
            digest = hmac.new(self._salt_key, org_id.encode(), hashlib.sha256).hexdigest()
            salt = self._salt_of_org[org_id] = b'"%b"' % digest[:32].encode()
        return salt


def _stream_options(asked: StreamOptions | None, *, continuous: bool) -> bytes | None:
    """The stream options to send so that the engine reports usage; None when the client's own already do."""
    has_usage = asked is not None and asked.include_usage is True
    has_continuous = asked is not None and asked.continuous_usage_stats is True
    if has_usage and (has_continuous or not continuous):
        return None
    if continuous:
        return b'{"include_usage":true,"continuous_usage_stats":true}'
    return b'{"include_usage":true}'


def _merge(body: Buffer, options: bytes) -> bytes:
    """The client's stream options with ours among them; all others of its stay as they are."""
    sent = [bytes(body[m.value_start : m.end]) for m in list_members(body) if m.name == "stream_options"]
    if not sent[-1].startswith(b"{"):
        return options
    return edit_object(sent[-1], put={m.name: options[m.value_start : m.end] for m in list_members(options)})


def _limit_output(exchange: Exchange, put: dict[str, bytes]) -> bool:
    """Put the lowered limit in place of each the client sent, or where no engine saw one; whether it replaces any."""
    limit = b"%d" % (exchange.output_tokens_max or 0)
    endpoint = exchange.endpoint
    names = [name for name, _ in exchange.peek.output_limits()]
    for name in names:
        put[name] = limit
    if endpoint.output_limit is not None and not any(name in endpoint.output_limits for name in names):
        put[endpoint.output_limit] = limit
    return bool(names)

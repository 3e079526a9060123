"""Backends' errors in OpenAI's shape. vLLM and the servers before it have four others (see `read_upstream_error`)."""

import math
import re
import time
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from ias.gateway.errors import RETRY_SOON, ErrorDetail, Refusal, encode_error, upstream_failed

_CONTEXT_OVERFLOW = re.compile(
    r"maximum context length|context length (?:is|of) |longer than the maximum model length", re.IGNORECASE
)
_NO_SUCH_PATH = "Not Found"
"""What servers on FastAPI (vLLM's among them) say of URLs that they do not have."""
_MESSAGE_LENGTH_MAX = 2000
_CODE_LENGTH_MAX = 64
_WAIT_MAX_S = 86_400.0
_OPENAI_KINDS = frozenset({"invalid_request_error", "server_error", "tokens", "requests", "insufficient_quota"})


class UpstreamError(msgspec.Struct):
    """What could be made out of a backend's error."""

    message: str | None = None
    kind: str | None = None
    param: str | None = None
    code: str | None = None


def read_upstream_error(body: bytes | bytearray) -> UpstreamError:
    """The error in a body: OpenAI's object, vLLM's with a numeric code, a bare string, FastAPI's `detail`, or nothing."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return UpstreamError()
    if not isinstance(document, dict):
        return UpstreamError()
    error = document.get("error", document.get("detail", document))
    if isinstance(error, str):
        return UpstreamError(message=_text(error))
    if not isinstance(error, dict):
        return UpstreamError(message=_text(document.get("message")))
    return UpstreamError(
        message=_text(error.get("message")),
        kind=_text(error.get("type")),
        param=_text(error.get("param")),
        code=_code(error.get("code")),
    )


def _text(value: Any) -> str | None:
    return value[:_MESSAGE_LENGTH_MAX] if isinstance(value, str) else None


def _code(value: Any) -> str | None:
    """OpenAI's codes are short names; vLLM's are numbers that repeat the status."""
    return value[:_CODE_LENGTH_MAX] if isinstance(value, str) else None


def refusal_of(
    status: int, body: bytes | bytearray, *, public_model: str, upstream_model: str, retry_after: bytes = b""
) -> Refusal:
    """What the client is told about a backend's error answer. Nothing of the backend's own name or pages gets out.

    `retry_after` is the header of that name, passed on where waiting helps.
    """
    error = read_upstream_error(body)
    wait = _wait_header(retry_after)
    if status in (401, 403):  # our credential was refused, not the client's
        return upstream_failed(502, "The model's server refused the gateway.", "upstream_refused_credentials")
    if status >= 500 or status < 400:
        shown = error.message if error.message and status == 503 else "The model's server had an error."
        return Refusal(
            status if status in (500, 503, 504) else 502,
            shown.replace(upstream_model, public_model),
            kind="server_error",
            code=error.code,
            headers=wait if status == 503 else RETRY_SOON if status != 500 else b"",
        )
    message = (error.message or "The model's server refused the request.").replace(upstream_model, public_model)
    if status == 400 and _CONTEXT_OVERFLOW.search(message):
        return Refusal(400, message, code="context_length_exceeded", param="messages")
    if status == 404:
        return _not_found(error, message, public_model)
    if status == 429:
        return Refusal(
            429, message, kind=_kind(error, "requests"), code=error.code or "rate_limit_exceeded", headers=wait
        )
    return Refusal(status, message, kind=_kind(error, "invalid_request_error"), code=error.code, param=error.param)


def _wait_header(retry_after: bytes) -> bytes:
    """Our own Retry-After with the backend's wait, in whole seconds; a second where it names none that makes sense."""
    text = retry_after.decode("latin-1").strip()
    try:
        wait_s = float(text) if text[:1].isdigit() else parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError):
        return RETRY_SOON
    if not wait_s <= _WAIT_MAX_S:  # not a number either
        return RETRY_SOON
    return b"retry-after: %d\r\n" % max(1, math.ceil(wait_s))


def _not_found(error: UpstreamError, message: str, public_model: str) -> Refusal:
    if "model" in message.lower() and "exist" in message.lower():
        return Refusal(
            404, f"The model `{public_model}` does not exist or you do not have access to it.", code="model_not_found"
        )
    if error.kind is None and message == _NO_SUCH_PATH:
        return Refusal(404, f"The model `{public_model}` is not served at this URL.", code="unsupported_endpoint")
    return Refusal(404, message, kind=_kind(error, "invalid_request_error"))


def _kind(error: UpstreamError, default: str) -> str:
    return error.kind if error.kind in _OPENAI_KINDS and error.kind is not None else default


def normalise_event_error(data: bytes) -> bytes:
    """The JSON of an error inside a stream, in OpenAI's shape."""
    error = read_openai_error(data)
    return encode_error(error.message, kind=error.type, code=error.code, param=error.param)


def read_openai_error(data: bytes) -> ErrorDetail:
    """An error inside a stream, as OpenAI would put it."""
    error = read_upstream_error(data)
    return ErrorDetail(
        error.message or "The model's server had an error.", _kind(error, "server_error"), error.param, error.code
    )

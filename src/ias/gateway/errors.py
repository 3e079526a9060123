"""Every way in which the gateway says no, in OpenAI's shape: status, type, code and text as its SDKs expect them."""

import msgspec

from ias.gateway.settings import GatewaySettings

RETRY_SOON = b"retry-after: 1\r\n"
RETRY_LATER = b"retry-after: 5\r\n"
_NAME_LENGTH_MAX = 256
"""Of what a client calls a model an answer repeats so much."""
DO_NOT_RETRY = b"x-should-retry: false\r\n"


class ErrorDetail(msgspec.Struct):
    """The four keys that an OpenAI error always has."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(msgspec.Struct):
    """What is sent as JSON."""

    error: ErrorDetail


class Refusal(Exception):  # noqa: N818 - the answer to a client, seldom a fault of the program
    """An answer other than success. Raised by a stage, sent by the pipeline."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: bytes = b"",
        denied_by: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.code = code
        self.param = param
        self.headers = headers if denied_by is None else headers + f"x-ias-denied-by: {denied_by}\r\n".encode()
        """Complete header lines, each ended by CRLF."""
        self.denied_by = denied_by
        """The ceiling that has no room, as kind and id."""

    def body(self) -> bytes:
        """The JSON body."""
        return encode_error(str(self), kind=self.kind, code=self.code, param=self.param)


def encode_error(message: str, *, kind: str, code: str | None = None, param: str | None = None) -> bytes:
    """The JSON of an OpenAI error."""
    return msgspec.json.encode(ErrorBody(ErrorDetail(message, kind, param, code)))


# ------------------------------------------------------------------ who is calling


def no_key() -> Refusal:
    """401: nothing that could be a key was sent."""
    return Refusal(
        401,
        "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
        "(i.e. Authorization: Bearer YOUR_KEY).",
    )


def wrong_key(key: bytes) -> Refusal:
    """401: the key is malformed, unknown, revoked or expired. It is masked: answers end up in logs."""
    return Refusal(401, f"Incorrect API key provided: {mask_key(key)}.", code="invalid_api_key")


def mask_key(key: bytes) -> str:
    """A key as an answer may show it: never more than its first three and last four characters."""
    text = key.decode("ascii", "replace")
    if len(text) < 16:
        return "*" * len(text)
    return f"{text[:3]}{'*' * 8}{text[-4:]}"


def mismatched_tenant(header: str) -> Refusal:
    """401: the organization or project header names another tenant than the key's."""
    return Refusal(
        401, f"OpenAI-{header} header should match {header.lower()} for API key", code=f"mismatched_{header.lower()}"
    )


def key_not_usable(message: str, code: str) -> Refusal:
    """403: the key is genuine but may not do this."""
    return Refusal(403, message, code=code)


# ------------------------------------------------------------------ what is asked


def unparsable_body() -> Refusal:
    """400: not JSON."""
    return Refusal(
        400,
        "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP library "
        "correctly. The API expects a JSON payload, but what was sent was not valid JSON.)",
    )


def invalid(message: str, *, param: str | None = None, code: str | None = None) -> Refusal:
    """400: JSON, but not a request that can be served."""
    return Refusal(400, message, param=param, code=code)


def model_not_found(model: str) -> Refusal:
    """404: the same answer for a model that does not exist and one the org may not see."""
    name = model if len(model) <= _NAME_LENGTH_MAX else f"{model[:_NAME_LENGTH_MAX]}…"
    return Refusal(404, f"The model `{name}` does not exist or you do not have access to it.", code="model_not_found")


def model_forbidden(model: str) -> Refusal:
    """403: the org may use the model; the key, or its project, may not. The code is OpenAI's for this too."""
    return Refusal(403, f"Your API key or its project does not have access to model `{model}`.", code="model_not_found")


def model_retired(model: str, replacement: str | None) -> Refusal:
    """404: the model's sunset has passed."""
    instead = f" Use `{replacement}` instead." if replacement else ""
    return Refusal(404, f"The model `{model}` has been retired.{instead}", code="model_not_found")


def model_unsuitable(model: str, path: str) -> Refusal:
    """404: the model is not for this endpoint."""
    return Refusal(
        404, f"The model `{model}` is not supported in the {path} endpoint.", param="model", code="model_not_supported"
    )


def unknown_url(method: str, path: str) -> Refusal:
    """404: no such endpoint."""
    return Refusal(404, f"Invalid URL ({method} {path})")


def wrong_method(method: str, path: str, allowed: str) -> Refusal:
    """405: the endpoint exists, for other methods."""
    return Refusal(
        405,
        f"Not allowed to {method} on {path}.",
        code="method_not_supported",
        headers=f"allow: {allowed}\r\n".encode(),
    )


def body_too_large(settings: GatewaySettings) -> Refusal:
    """413."""
    return Refusal(
        413,
        f"The request body is larger than {settings.gateway_body_bytes_max} bytes.",
        code="request_too_large",
    )


def unsupported_encoding(encoding: str) -> Refusal:
    """415: a Content-Encoding other than gzip, deflate or identity."""
    return Refusal(
        415, f"Content-Encoding `{encoding}` is not supported; use gzip or none.", code="unsupported_encoding"
    )


def malformed_http(message: str, status: int = 400) -> Refusal:
    """400, 408 or 431: below the level at which OpenAI's API has anything to say."""
    return Refusal(status, message)


def idempotency_key_in_use() -> Refusal:
    """409: the first request with this Idempotency-Key is still being answered; its answer can be had in a moment."""
    return Refusal(
        409,
        "A request with this Idempotency-Key is still being answered.",
        code="idempotency_key_in_use",
        headers=RETRY_SOON + b"x-should-retry: true\r\n",
    )


def idempotency_key_reused() -> Refusal:
    """422: the Idempotency-Key was used for another request. Not 409, which clients try again."""
    return Refusal(
        422,
        "This Idempotency-Key was used with another request; use a new key for each request.",
        code="idempotency_key_reused",
        param="idempotency-key",
    )


# ------------------------------------------------------------------ what it may cost


def model_unpriced(model: str) -> Refusal:
    """503: serving it would be unaccountable."""
    return Refusal(
        503,
        f"The model `{model}` has no price in force, so its use cannot be accounted for.",
        kind="server_error",
        code="model_unpriced",
        headers=DO_NOT_RETRY,
    )


# ------------------------------------------------------------------ what is broken


def unavailable(message: str, code: str) -> Refusal:
    """503: something the gateway needs is away; worth another try soon."""
    return Refusal(503, message, kind="server_error", code=code, headers=RETRY_SOON)


def queue_full() -> Refusal:
    """429: too many wait already, and of these the caller's org has most."""
    return Refusal(
        429,
        "The model is busy, and too many requests of yours wait for it already.",
        kind="requests",
        code="queue_full",
        headers=RETRY_LATER,
    )


def redis_away() -> Refusal:
    """503: keys, budgets and rate limits cannot be checked."""
    return unavailable(
        "The service cannot check keys, budgets and rate limits at the moment.", "policy_store_unavailable"
    )


def upstream_failed(status: int, message: str, code: str) -> Refusal:
    """502 or 504: the backend did not give a usable answer."""
    return Refusal(status, message, kind="server_error", code=code, headers=RETRY_SOON)


def internal() -> Refusal:
    """500: a fault of the gateway."""
    return Refusal(500, "The server had an error while processing your request. Sorry about that!", kind="server_error")

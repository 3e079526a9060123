"""The endpoints: how each is called, read and relayed."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ias.gateway.peek import (
    ChatPeek,
    CompletionPeek,
    Decoder,
    EmbeddingPeek,
    ResponsePeek,
    check_chat,
    check_completion,
    check_embedding,
    check_response,
)

Check = Callable[[Any], None]


class Endpoint:
    """What is particular to one endpoint."""

    def __init__(
        self,
        name: str,
        path: str,
        *,
        methods: tuple[str, ...],
        decoder: Decoder | None = None,
        check: Check | None = None,
        output_limit: str | None = None,
        has_named_events: bool = False,
    ) -> None:
        self.name = name
        """In key scopes, metrics and usage records."""
        self.path = path
        self.upstream_path = path.removeprefix("/v1").encode()
        self.methods = methods
        self.allow = ", ".join((*methods, "OPTIONS"))
        self.decoder = decoder
        self.check = check
        self.output_limit = output_limit
        """The member that limits output tokens, put in where the client sent none; None: there is no output to limit."""
        self.has_named_events = has_named_events
        """Streams in the form of `/v1/responses`: named events, no [DONE], usage without being asked for."""

    @property
    def is_inference(self) -> bool:
        """Whether requests are relayed to a backend."""
        return self.decoder is not None


CHAT_COMPLETIONS = Endpoint(
    "chat_completions",
    "/v1/chat/completions",
    methods=("POST",),
    decoder=msgspec.json.Decoder(ChatPeek),
    check=check_chat,
    output_limit="max_tokens",
)
COMPLETIONS = Endpoint(
    "completions",
    "/v1/completions",
    methods=("POST",),
    decoder=msgspec.json.Decoder(CompletionPeek),
    check=check_completion,
    output_limit="max_tokens",
)
EMBEDDINGS = Endpoint(
    "embeddings",
    "/v1/embeddings",
    methods=("POST",),
    decoder=msgspec.json.Decoder(EmbeddingPeek),
    check=check_embedding,
)
RESPONSES = Endpoint(
    "responses",
    "/v1/responses",
    methods=("POST",),
    decoder=msgspec.json.Decoder(ResponsePeek),
    check=check_response,
    output_limit="max_output_tokens",
    has_named_events=True,
)
MODELS = Endpoint("models", "/v1/models", methods=("GET", "HEAD"))
MODEL = Endpoint("models", "/v1/models/{id}", methods=("GET", "HEAD"))
HEALTH = Endpoint("health", "/health", methods=("GET", "HEAD"))
READY = Endpoint("ready", "/ready", methods=("GET", "HEAD"))
METRICS = Endpoint("metrics", "/metrics", methods=("GET", "HEAD"))
UNKNOWN = Endpoint("unknown", "", methods=())

_BY_PATH: Mapping[bytes, Endpoint] = {
    endpoint.path.encode(): endpoint
    for endpoint in (CHAT_COMPLETIONS, COMPLETIONS, EMBEDDINGS, RESPONSES, MODELS, HEALTH, READY, METRICS)
}
MODEL_PREFIX = b"/v1/models/"


def find_endpoint(path: bytes) -> Endpoint:
    """The endpoint at a path (without its query); UNKNOWN where there is none. A trailing slash does not matter."""
    endpoint = _BY_PATH.get(path)
    if endpoint is not None:
        return endpoint
    stripped = path.rstrip(b"/")
    if stripped in _BY_PATH:
        return _BY_PATH[stripped]
    if stripped.startswith(MODEL_PREFIX):
        return MODEL
    return UNKNOWN

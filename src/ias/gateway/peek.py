"""The few members of a request body that the gateway acts on; all others pass through unread and untouched."""

from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

POLICED = frozenset(
    {
        "cache_salt",
        "priority",
        "request_id",
        "kv_transfer_params",
        "rid",
        "bootstrap_host",
        "bootstrap_port",
        "bootstrap_room",
        "n_predict",
        "n_cmpl",
    }
)
"""Engine controls that would let one tenant act on another, or on the engine's network (the first eight, of vLLM and
SGLang), or that overrule limits which the gateway has reserved for (the last two, of llama.cpp, where `n_predict` beats
`max_tokens`). What clients send in them goes no further."""


class StreamOptions(msgspec.Struct):
    """`stream_options`."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class Peek(msgspec.Struct):
    """What every endpoint's body is looked at for.

    UNSET tells "not sent" from an explicit null: what is put into a body must not be overruled by a later null of the client.
    """

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | UnsetType | None = UNSET
    n: int | None = None
    best_of: int | None = None
    max_completion_tokens: int | UnsetType | None = UNSET
    max_tokens: int | UnsetType | None = UNSET
    max_output_tokens: int | UnsetType | None = UNSET
    metadata: dict[str, Any] | None = None
    cache_salt: Raw | UnsetType = UNSET
    priority: Raw | UnsetType = UNSET
    request_id: Raw | UnsetType = UNSET
    kv_transfer_params: Raw | UnsetType = UNSET
    rid: Raw | UnsetType = UNSET
    bootstrap_host: Raw | UnsetType = UNSET
    bootstrap_port: Raw | UnsetType = UNSET
    bootstrap_room: Raw | UnsetType = UNSET
    n_predict: Raw | UnsetType = UNSET
    n_cmpl: Raw | UnsetType = UNSET
    tools: Raw | UnsetType = UNSET
    chat_template: Raw | UnsetType = UNSET
    prompt_embeds: Raw | UnsetType = UNSET

    def has_policed(self) -> bool:
        """Whether the client sent any of POLICED."""
        return not (
            self.cache_salt is UNSET
            and self.priority is UNSET
            and self.request_id is UNSET
            and self.kv_transfer_params is UNSET
            and self.rid is UNSET
            and self.bootstrap_host is UNSET
            and self.bootstrap_port is UNSET
            and self.bootstrap_room is UNSET
            and self.n_predict is UNSET
            and self.n_cmpl is UNSET
        )

    def output_limits(self) -> list[tuple[str, int | None]]:
        """The members that limit output tokens, as sent, nulls included."""
        limits = []
        if self.max_tokens is not UNSET:
            limits.append(("max_tokens", self.max_tokens))
        if self.max_completion_tokens is not UNSET:
            limits.append(("max_completion_tokens", self.max_completion_tokens))
        if self.max_output_tokens is not UNSET:
            limits.append(("max_output_tokens", self.max_output_tokens))
        return limits


class Message(msgspec.Struct):
    """A message is an object; what is in it is the engine's business. Its content is told apart by its first byte alone."""

    content: Raw | UnsetType = UNSET

    def is_text(self) -> bool:
        """Whether the content is a string or null: no parts, so no images, audio or files."""
        return self.content is UNSET or memoryview(self.content)[0] in b'"n'


class ChatPeek(Peek):
    """`/v1/chat/completions`."""

    messages: list[Message] | None = None


class TextMessage(msgspec.Struct):
    """A message whose content is text or nothing."""

    content: str | UnsetType | None = UNSET


TEXT_MESSAGES: Final = msgspec.json.Decoder(list[TextMessage])


class CompletionPeek(Peek):
    """`/v1/completions`."""

    prompt: str | list[Raw] | None = None


class EmbeddingPeek(Peek):
    """`/v1/embeddings`."""

    input: Raw | UnsetType = UNSET


class ResponsePeek(Peek):
    """`/v1/responses`."""

    input: Raw | UnsetType = UNSET
    previous_response_id: str | None = None
    background: bool | None = None


Decoder = msgspec.json.Decoder[Any]

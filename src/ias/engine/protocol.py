"""What the engine accepts, and how it refuses: vLLM's fields and vLLM's error bodies.

Unknown fields are ignored, as vLLM does. Errors are `{"error": {message, type, param, code}}` with the HTTP status as an
integer `code`; that a gateway has to translate them is the point.
"""

from typing import Any, Literal, TypeVar

import msgspec

from ias.engine.generation import Limits

CHOICES_MAX = 128
COMPLETION_TOKENS_DEFAULT = 16
EMBEDDING_DIMENSIONS_DEFAULT = 256
EMBEDDING_DIMENSIONS_MAX = 4096


class EngineError(Exception):
    """A request is refused with an error in vLLM's shape."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.param = param

    def body(self) -> dict[str, Any]:
        """The answer's body."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.status}
        return {"error": error}


def bad_request(message: str, param: str | None = None) -> EngineError:
    """A 400."""
    return EngineError(400, "BadRequestError", message, param)


class StreamOptions(msgspec.Struct, frozen=True):
    """What a stream tells besides the text."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What chat and text completions share."""

    model: str | None = None
    max_tokens: int | None = None
    min_tokens: int = 0
    n: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    ignore_eos: bool = False
    cache_salt: str | None = None
    priority: int = 0

    @property
    def tokens_wanted(self) -> int | None:
        """The limit the client set."""
        return self.max_tokens

    @property
    def choices(self) -> int:
        """Answers per prompt."""
        return 1 if self.n is None else self.n


class ChatRequest(GenerationRequest, frozen=True, kw_only=True):
    """`POST /v1/chat/completions`."""

    messages: list[dict[str, Any]]
    max_completion_tokens: int | None = None

    @property
    def tokens_wanted(self) -> int | None:
        """The limit the client set, in either spelling."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class CompletionRequest(GenerationRequest, frozen=True, kw_only=True):
    """`POST /v1/completions`."""

    prompt: str | list[Any]
    echo: bool = False

    @property
    def tokens_wanted(self) -> int | None:
        """The limit the client set, or the endpoint's own."""
        return COMPLETION_TOKENS_DEFAULT if self.max_tokens is None else self.max_tokens


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /v1/embeddings`."""

    model: str | None = None
    input: str | list[Any]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


class TokenizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /tokenize`."""

    model: str | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    return_token_strs: bool | None = None


R = TypeVar("R", ChatRequest, CompletionRequest, EmbeddingRequest, TokenizeRequest)


def decode(body: bytes, content_type: str, kind: type[R]) -> R:
    """The request in a body.

    Raises:
        EngineError: it is not JSON, or a field has the wrong type.
    """
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise bad_request("Unsupported Media Type: Only 'application/json' is allowed")
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise bad_request(str(error), _field_of(str(error))) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad_request(f"Invalid JSON: {error}") from error


def check_generation(request: GenerationRequest, *, priorities: bool) -> None:
    """Refuse values out of their range; `priorities` is whether the scheduler knows any.

    Raises:
        EngineError: the first of them.
    """
    if not 1 <= request.choices <= CHOICES_MAX:
        raise bad_request(f"n must be between 1 and {CHOICES_MAX}, got {request.n}.", "n")
    if request.tokens_wanted is not None and request.tokens_wanted < 1:
        raise bad_request(f"max_tokens must be at least 1, got {request.tokens_wanted}.", "max_tokens")
    if request.temperature is not None and not 0 <= request.temperature <= 2:
        raise bad_request(f"temperature must be between 0 and 2, got {request.temperature}.", "temperature")
    if request.top_p is not None and not 0 < request.top_p <= 1:
        raise bad_request(f"top_p must be above 0 and at most 1, got {request.top_p}.", "top_p")
    if request.min_tokens < 0:
        raise bad_request(f"min_tokens must be greater than or equal to 0, got {request.min_tokens}.", "min_tokens")
    if request.tokens_wanted is not None and request.min_tokens > request.tokens_wanted:
        raise bad_request(
            f"min_tokens must be less than or equal to max_tokens={request.tokens_wanted}, got {request.min_tokens}.",
            "min_tokens",
        )
    if request.cache_salt == "":
        raise bad_request("Parameter 'cache_salt' must be a non-empty string if provided.", "cache_salt")
    if request.priority and not priorities:
        raise bad_request(f"Got priority {request.priority} but Priority scheduling is not enabled.", "priority")
    if request.stream_options is not None and not request.stream:
        raise bad_request("Stream options can only be defined when `stream=True`.", "stream_options")
    if isinstance(request, ChatRequest) and not request.messages:
        raise bad_request("messages must not be empty.", "messages")


def make_limits(request: GenerationRequest, prompt_tokens: int, context_length: int) -> Limits:
    """What ends the answers to one prompt.

    Raises:
        EngineError: the prompt, or the prompt and what is wanted, do not fit into the context.
    """
    wanted = request.tokens_wanted
    check_context(prompt_tokens, wanted or 1, wanted, context_length)
    stop = (request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ())
    return Limits(
        tokens_max=wanted or context_length - prompt_tokens,
        tokens_min=request.min_tokens,
        stop=tuple(text for text in stop if text),
        ignore_natural_end=request.ignore_eos,
    )


def check_context(prompt_tokens: int, needed: int, wanted: int | None, context_length: int) -> None:
    """Refuse what does not fit into the context; `wanted` are the output tokens that the client named.

    Raises:
        EngineError: in vLLM's words.
    """
    if prompt_tokens + needed <= context_length:
        return
    asked = f" and you asked for {wanted} output tokens" if wanted else ""
    raise bad_request(
        f"This model's maximum context length is {context_length} tokens. However, your prompt contains "
        f"{prompt_tokens} input tokens{asked}. Shorten the prompt or ask for fewer output tokens.",
        "input_tokens",
    )


def _field_of(message: str) -> str | None:
    """The field that a validation error names at its end, e.g. "… - at `$.n`"."""
    _, found, path = message.rpartition("at `$.")
    if found:
        return path.rstrip("`")
    _, found, rest = message.partition("missing required field `")
    return rest.partition("`")[0] if found else None

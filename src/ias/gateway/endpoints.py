"""The endpoints: how each is called, read and relayed."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from ias.contracts.routes import Capability
from ias.gateway.peek import ChatPeek, CompletionPeek, Decoder, EmbeddingPeek, ResponsePeek
from ias.gateway.read_body import check_chat, check_completion, check_embedding, check_response

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
        output_limits: tuple[str, ...] = (),
        has_named_events: bool = False,
        capability: Capability | None = None,
    ) -> None:
        self.name = name
        """In key scopes, metrics and usage records."""
        self.path = path
        self.upstream_path = path.removeprefix("/v1").encode()
        self.methods = methods
        self.allow = ", ".join((*methods, "OPTIONS"))
        self.decoder = decoder
        self.check = check
        self.output_limits = output_limits
        """The members that engines take for a limit on output tokens here; empty: there is no output to limit."""
        self.output_limit = output_limits[0] if output_limits else None
        """The one that is put in where the client sent none."""
        self.has_named_events = has_named_events
        """Streams in the form of `/v1/responses`: named events, no [DONE], usage without being asked for."""

        self.capability = capability
        """What a model must be for, to be asked here."""

    def repeat(self) -> "Endpoint":
        """Another that is told apart from this one and the same in all else."""
        return Endpoint(
            self.name,
            self.path,
            methods=self.methods,
            decoder=self.decoder,
            check=self.check,
            output_limits=self.output_limits,
            has_named_events=self.has_named_events,
            capability=self.capability,
        )

    @property
    def is_inference(self) -> bool:
        """Whether requests are relayed to a backend."""
        return self.decoder is not None


CHAT_COMPLETIONS: Final = Endpoint(
    "chat_completions",
    "/v1/chat/completions",
    methods=("POST",),
    decoder=msgspec.json.Decoder(ChatPeek),
    check=check_chat,
    output_limits=("max_tokens", "max_completion_tokens"),
    capability="chat",
)
COMPLETIONS: Final = Endpoint(
    "completions",
    "/v1/completions",
    methods=("POST",),
    decoder=msgspec.json.Decoder(CompletionPeek),
    check=check_completion,
    output_limits=("max_tokens",),
    capability="completions",
)
EMBEDDINGS: Final = Endpoint(
    "embeddings",
    "/v1/embeddings",
    methods=("POST",),
    decoder=msgspec.json.Decoder(EmbeddingPeek),
    check=check_embedding,
    capability="embeddings",
)
RESPONSES: Final = Endpoint(
    "responses",
    "/v1/responses",
    methods=("POST",),
    decoder=msgspec.json.Decoder(ResponsePeek),
    check=check_response,
    output_limits=("max_output_tokens",),
    has_named_events=True,
    capability="responses",
)
MODELS: Final = Endpoint("models", "/v1/models", methods=("GET", "HEAD"))
MODEL: Final = Endpoint("models", "/v1/models/{id}", methods=("GET", "HEAD"))
HEALTH: Final = Endpoint("health", "/health", methods=("GET", "HEAD"))
READY: Final = Endpoint("ready", "/ready", methods=("GET", "HEAD"))
UNKNOWN: Final = Endpoint("unknown", "", methods=())

DEPLOYMENT_CHAT_COMPLETIONS: Final = CHAT_COMPLETIONS.repeat()
DEPLOYMENT_COMPLETIONS: Final = COMPLETIONS.repeat()
DEPLOYMENT_EMBEDDINGS: Final = EMBEDDINGS.repeat()
"""The same endpoints as Azure's clients call them, with the model in the path."""

_BY_PATH: Final[Mapping[bytes, Endpoint]] = {
    endpoint.path.encode(): endpoint
    for endpoint in (CHAT_COMPLETIONS, COMPLETIONS, EMBEDDINGS, RESPONSES, MODELS, HEALTH, READY)
}
_MODEL_PREFIX: Final = b"/v1/models/"
_WITHOUT_VERSION: Final = (b"/chat/completions", b"/completions", b"/embeddings", b"/responses", b"/models")
_DEPLOYMENT_PREFIX: Final = b"/openai/deployments/"
_BY_DEPLOYMENT_SUFFIX: Final[Mapping[bytes, Endpoint]] = {
    b"/chat/completions": DEPLOYMENT_CHAT_COMPLETIONS,
    b"/completions": DEPLOYMENT_COMPLETIONS,
    b"/embeddings": DEPLOYMENT_EMBEDDINGS,
}


def find_endpoint(path: bytes) -> Endpoint:
    """The endpoint at a path (without its query); UNKNOWN where there is none.

    What clients make of a base URL is understood: a trailing slash, no `/v1`, Azure's `/openai/v1/…` and
    `/openai/deployments/{model}/…`.
    """
    return _BY_PATH.get(path) or _find_by_other_name(path)


def _find_by_other_name(path: bytes) -> Endpoint:
    if path.startswith(_DEPLOYMENT_PREFIX):
        suffix = _deployment_suffix(path)
        return UNKNOWN if suffix is None else _BY_DEPLOYMENT_SUFFIX[suffix]
    proper = _proper_path(path)
    return MODEL if proper.startswith(_MODEL_PREFIX) else _BY_PATH.get(proper, UNKNOWN)


def _proper_path(path: bytes) -> bytes:
    path = path.rstrip(b"/")
    if path.startswith(b"/openai/v1/"):
        return path.removeprefix(b"/openai")
    return b"/v1" + path if path.startswith(_WITHOUT_VERSION) else path


def model_in_path(path: bytes) -> bytes:
    """What stands for a model in the path of MODEL, as it was sent."""
    return _proper_path(path).removeprefix(_MODEL_PREFIX)


def deployment_in_path(path: bytes) -> bytes:
    """What stands for a model in the path of a deployment's endpoint, as it was sent."""
    return path.rstrip(b"/").removeprefix(_DEPLOYMENT_PREFIX).removesuffix(_deployment_suffix(path) or b"")


def _deployment_suffix(path: bytes) -> bytes | None:
    name = path.rstrip(b"/").removeprefix(_DEPLOYMENT_PREFIX)
    suffix = next((suffix for suffix in _BY_DEPLOYMENT_SUFFIX if name.endswith(suffix)), None)
    return None if suffix == name else suffix

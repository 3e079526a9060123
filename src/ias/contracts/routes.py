"""The route table: what the registry tells every gateway about models and the backends that serve them.

One JSON document under `redis_keys.ROUTES`, written whole, with a version that only grows. A gateway keeps the last good
copy when Redis or the registry is away.
"""

import msgspec

CREDENTIAL_PURPOSE = "backend credentials"
"""What `sealed_credential` is sealed for: registry seals with it, the gateway opens."""


class Backend(msgspec.Struct, frozen=True, kw_only=True):
    """One server that serves a model."""

    id: str
    url: str
    """Base URL including the version path, e.g. `http://10.0.0.7:8000/v1`."""
    weight: int = 1
    upstream_model: str
    """The name the backend itself knows the model by."""
    sealed_credential: str | None = None
    """The backend's API key, sealed by `kit.sealing`; None sends no Authorization header."""
    draining: bool = False
    continuous_usage: bool = False
    """Whether the backend understands `stream_options.continuous_usage_stats` (vLLM does)."""
    vllm_extensions: bool = False
    """Whether the backend speaks vLLM's other extensions: takes `cache_salt`, answers with `reasoning`."""


class ModelRoute(msgspec.Struct, frozen=True, kw_only=True):
    """A public model and where it is served."""

    model_id: str
    name: str
    created: int
    """Unix seconds, as OpenAI's `created`."""
    context_length: int
    output_tokens_max: int | None = None
    backends: tuple[Backend, ...] = ()


class RouteTable(msgspec.Struct, frozen=True, kw_only=True):
    """Every enabled model by its public name."""

    version: int
    models: dict[str, ModelRoute]

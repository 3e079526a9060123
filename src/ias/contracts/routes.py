"""The route table: what the registry tells every gateway about models and the backends that serve them.

One JSON document under `redis_keys.ROUTES`, written whole, with a version that only grows. A gateway keeps the last good
copy when Redis or the registry is away. What changes by itself (health, load) is in `backend_states`.
"""

from typing import Literal

import msgspec

CREDENTIAL_PURPOSE = "backend credentials"
"""What `sealed_credential` is sealed for: registry seals with it, the gateway opens."""

Strategy = Literal["prefix", "least_tokens", "weighted", "priority"]
"""How one backend of a group is chosen.

`prefix` prefers the one that has probably cached the prompt's beginning, until it is busier than the others; `least_tokens` the
one with the fewest tokens in flight for its weight; `weighted` by lot; `priority` the first in order of id that has room.
"""

Capability = Literal["chat", "completions", "embeddings", "responses", "tools", "vision", "audio", "structured_output"]
"""What a model is for. The first four are endpoints."""

Group = Literal["stable", "canary"]


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
    """Takes nothing new; what it serves goes on."""
    enabled: bool = True
    """False: the kill switch; it takes nothing, and what it serves is cut."""
    tier: int = 0
    """Backends of the lowest tier that has one which can serve are used; the others are for when there is none."""
    group: Group = "stable"
    concurrency_max: int | None = None
    """How many requests at a time it is said to bear, over all gateways; None is unknown."""
    continuous_usage: bool = False
    """Whether the backend understands `stream_options.continuous_usage_stats` (vLLM does)."""
    vllm_extensions: bool = False
    """Whether the backend speaks vLLM's other extensions: takes `cache_salt`, answers with `reasoning`."""


class RoutePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How requests for a model are spread, tried again and timed."""

    strategy: Strategy = "prefix"
    is_sticky: bool = False
    """Whether requests with the same `x-session-id`, or else the same `user`, stay with their backend while it can serve."""
    canary_percent: int = 0
    """Share of requests (0 to 100) for the canary group, the same for the same session; the rest is for the stable one."""
    attempts_max: int = 3
    """How many backends a request is sent to at most, while no byte of an answer has gone out."""
    first_byte_timeout_s: float | None = None
    """None here and below: the gateway's setting."""
    total_timeout_s: float | None = None
    queue_timeout_s: float | None = None
    """How long a request waits for a place, or for a cold model, before it is refused."""


class ModelRoute(msgspec.Struct, frozen=True, kw_only=True):
    """A public model and where it is served."""

    model_id: str
    name: str
    aliases: tuple[str, ...] = ()
    """Other names for it. `RouteTable.models` holds the route under each of them too; prices and limits go by `name`."""
    created: int
    """Unix seconds, as OpenAI's `created`."""
    context_length: int
    output_tokens_max: int | None = None
    capabilities: tuple[Capability, ...] = ()
    """Empty: anything may be tried."""
    org_ids: tuple[str, ...] | None = None
    """The orgs that may see and use it; None is all."""
    deprecated_at: int | None = None
    """Unix seconds, told to clients by RFC 9745's `Deprecation`; None: not deprecated."""
    sunset_at: int | None = None
    """Unix seconds, RFC 8594's `Sunset`: from then on it is refused."""
    replacement: str | None = None
    """The public name of the model to use instead."""
    policy: RoutePolicy = RoutePolicy()
    backends: tuple[Backend, ...] = ()


class RouteTable(msgspec.Struct, frozen=True, kw_only=True):
    """Every enabled model by its public name, and by its aliases."""

    version: int
    models: dict[str, ModelRoute]

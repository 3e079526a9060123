"""Events on the bus. `contracts/events/` in the repository holds the JSON Schema and an example of each.

A message carries a batch: `{"schema": "usage_recorded/1", "records": [...]}`. Delivery is at least once; the record's id is
the idempotency key, so any number of deliveries counts once.
"""

from typing import Any, Literal

import msgspec

USAGE_RECORDED = "usage_recorded/1"
USAGE_TOPIC = "usage_recorded"

AUDIT_RECORDED = "audit_recorded/1"
AUDIT_TOPIC = "audit_recorded"

Outcome = Literal["completed", "cancelled", "failed"]


class UsageRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """One served request: who, what, how many tokens, at which price, and the decisions taken on the way."""

    id: str
    """UUIDv7 made by the gateway; the idempotency key everywhere."""
    request_id: str
    occurred_at: str
    """RFC 3339, UTC: when the request was settled."""
    org_id: str
    project_id: str
    api_key_id: str
    user_id: str | None
    service_account_id: str | None
    endpoint: str
    model: str
    """The public name the client asked for."""
    backend_id: str
    streamed: bool
    status: int
    """The HTTP status the client got."""
    outcome: Outcome
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    estimated: bool
    """True when the engine reported no usage and the counts are the gateway's own bound or count."""
    price_id: str | None
    price_version: int | None
    cost_nano_usd: int
    """What the gateway settled in the budgets; billing computes it again from the price."""
    ttft_ms: float | None
    """From the request's last byte to the answer's first body byte."""
    duration_ms: float
    decision: dict[str, Any]
    """Why it was admitted and routed so: budgets with what remained, clamped tokens, candidates, attempts."""


class UsageBatch(msgspec.Struct, frozen=True, kw_only=True):
    """The message on the bus."""

    schema: str
    records: list[UsageRecord]


ActorKind = Literal["user", "service", "system", "anonymous"]
AuditOutcome = Literal["done", "denied"]


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Something that was done, or refused: who, what, to what, through which request. Never holds a secret."""

    id: str
    """UUIDv7 made where it happened; the idempotency key."""
    occurred_at: str
    """RFC 3339, UTC."""
    service: str
    org_id: str | None
    """Null for what belongs to the platform and to no org."""
    actor_kind: ActorKind
    actor_id: str | None
    action: str
    """`noun.verb` of what was done, e.g. `api_key.revoke`; of a denial the permission that was needed, e.g. `api_keys:write`."""
    target_kind: str
    target_id: str
    outcome: AuditOutcome
    reason: str | None
    """Of a denial: the `code` of the answer."""
    count: int
    """How many times it happened: above 1 only where equal denials were counted together."""
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str | None
    source_ip: str | None
    user_agent: str | None


class AuditBatch(msgspec.Struct, frozen=True, kw_only=True):
    """The message on the bus."""

    schema: str
    records: list[AuditRecord]


TOPIC_GROUPS: dict[str, tuple[str, ...]] = {
    USAGE_TOPIC: ("billing", "analytics", "identity"),
    AUDIT_TOPIC: ("identity",),
}
"""Who listens to a topic. Publishers declare the queues too, so that nothing published before a consumer's first start is lost."""

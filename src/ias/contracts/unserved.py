"""What is remembered of requests that were not served, so that it can be said afterwards why. They are no usage and cost nothing.

In Redis, of each org the newest ones, for a day: `redis_keys.unserved`.
"""

import msgspec

REMEMBERED_MAX = 1_000
"""Of one org's, however many it sends."""

KEPT_S = 86_400
"""After the last of them."""


class UnservedRequest(msgspec.Struct, frozen=True):
    """A request of a known key that ended before a backend served it."""

    request_id: str
    ended_at: str
    project_id: str
    api_key_id: str
    user_id: str | None
    service_account_id: str | None
    endpoint: str
    model: str
    """As the client named it; the beginning of a very long name."""
    status: int
    outcome: str
    code: str | None
    denied_by: str | None
    """The budget or rate limit that had no room, as kind and id."""
    reserved_nano_usd: int
    """What budgets were asked for."""
    remaining_nano_usd: int | None
    """What the budget that refused had left."""
    budgets: tuple[str, ...]
    """The ids of those that were asked."""
    rate_limits: tuple[str, ...]
    attempts: tuple[str, ...]
    """Backends that were tried."""

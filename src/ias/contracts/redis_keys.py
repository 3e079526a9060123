"""Every key in Redis that more than one process knows, in one place.

All keys of an org carry its id in braces, so that a Redis Cluster keeps them on one node and one script may touch them all.
"""

ROUTES = "ias:routes"
"""contracts.routes.RouteTable, written by registry."""

BACKEND_STATES = "ias:backend_states"
"""contracts.backend_states.BackendStates, written by registry's prober."""

PROBER_LEASE = "{ias:backend_states}:prober"
"""Which registry process probes, for a few seconds at a time; the registry's own. On the same node as what it guards."""

GATEWAY_WORKERS = "ias:gateway_workers"
"""A sorted set of the gateway's workers by when they last said (Unix seconds) that they are there; the gateway's own."""

PRICES = "ias:prices"
"""contracts.spending.PriceTable, written by billing."""

COUNTERS_READY = "ias:counters:ready"
"""Present while the spending counters are complete, written by billing. Absent: nothing is admitted."""

UNPUBLISHED = "ias:gateways:unpublished"
"""While the counters are not complete: a sorted set of the gateway workers with usage that is not on the bus yet, by the Unix
milliseconds at which they said so last. Billing waits for them."""

TRACKED_PREFIXES = (
    "ias:key:",
    "ias:org:",
    "ias:project:",
    "ias:routes",
    "ias:backend_states",
    "ias:prices",
    "ias:spending:",
    "ias:counters:",
)
"""What a gateway caches and must hear about when it changes (client-side caching, broadcast mode)."""


def api_key(digest: str) -> str:
    """contracts.api_keys.KeyRecord, written by identity."""
    return f"ias:key:{digest}"


def org(org_id: str) -> str:
    """contracts.api_keys.TenantRecord of an org, written by identity."""
    return f"ias:org:{org_id}"


def project(project_id: str) -> str:
    """contracts.api_keys.TenantRecord of a project, written by identity."""
    return f"ias:project:{project_id}"


def ended_session(session_id: str) -> str:
    """Present while tokens of a session that was ended may not have expired yet, written by identity."""
    return f"ias:session-ended:{session_id}"


def token_version(user_id: str) -> str:
    """The least version of a user's tokens that is still believed, written by identity when they lost something."""
    return f"ias:token-version:{user_id}"


def backend_outcomes(ten_seconds: int) -> str:
    """A hash of what gateways saw of backends from the Unix time `ten_seconds * 10` on: `{backend_id}:succeeded`, `…:failed`.

    Gateways add and let it expire after a minute; registry's circuit breaker reads.
    """
    return f"ias:backend_outcomes:{ten_seconds}"


def given_work(model_id: str, window: int) -> str:
    """A hash of the work that a model's backends were given by all gateways in a window of time, by org; the gateway's own."""
    return f"ias:given_work:{model_id}:{window}"


def kept_backends(model_id: str, window: int) -> str:
    """A set of how many of a model's backends gateways wanted kept free in a window of time; the gateway's own."""
    return f"ias:kept_backends:{model_id}:{window}"


def backend_wake(backend_id: str) -> str:
    """Present while a gateway is waking this backend, so that no other does; the gateway's own."""
    return f"ias:backend_wake:{backend_id}"


def spending_policy(org_id: str) -> str:
    """contracts.spending.SpendingPolicy, written by billing."""
    return f"ias:spending:{org_id}"


def budget_counter(org_id: str, budget_id: str, window: str) -> str:
    """A hash `{settled, reserved}` in nano-USD: the gateway adds, billing rebuilds."""
    return f"ias:{{{org_id}}}:budget:{budget_id}:{window}"


def rate_limit(org_id: str, limit_id: str) -> str:
    """What a rate limit has counted: a string, or for concurrency a sorted set of request ids; the gateway's own."""
    return f"ias:{{{org_id}}}:rate_limit:{limit_id}"


def reservation(org_id: str, request_id: str) -> str:
    """A hash of what one admitted request holds: amount and tokens, where they are held, and for whom (`claim`).

    The gateway makes and settles it; one whose deadline passed is booked by billing, marked `swept` and kept for a day.
    """
    return f"ias:{{{org_id}}}:reservation:{request_id}"


def reservation_deadlines(org_id: str) -> str:
    """A sorted set of request ids by the Unix time at which their reservation expires."""
    return f"ias:{{{org_id}}}:reservations"


def unserved(org_id: str) -> str:
    """A list of contracts.unserved.UnservedRequest, the newest first; gateways add and trim, billing reads."""
    return f"ias:{{{org_id}}}:unserved"


def idempotent_answer(org_id: str, project_id: str, key_digest: str) -> str:
    """What a request with an `Idempotency-Key` of this SHA-256 was answered, or that it is being answered; the gateway's own."""
    return f"ias:{{{org_id}}}:idempotency:{project_id}:{key_digest}"

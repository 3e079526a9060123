"""What the stages work with: one of each per worker."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ias.gateway.access_log import AccessLog
from ias.gateway.clock import Clock
from ias.gateway.metrics import Metrics
from ias.gateway.redis_connection import RedisConnection
from ias.gateway.request_ids import RequestIds
from ias.gateway.routers import Routers
from ias.gateway.settings import GatewaySettings
from ias.gateway.settlements import Settlements
from ias.gateway.snapshots import Snapshots
from ias.gateway.spool import Spool
from ias.gateway.unguarded import Unguarded
from ias.gateway.unserved import UnservedRequests
from ias.gateway.upstream import Upstreams
from ias.gateway.upstream_request import UpstreamRequests

if TYPE_CHECKING:
    from ias.gateway.tracing import Tracing


@dataclass
class Gateway:
    """One worker's parts. Built by `worker.py`, handed to every stage."""

    settings: GatewaySettings
    redis: RedisConnection
    snapshots: Snapshots
    settlements: Settlements
    routers: Routers
    upstreams: Upstreams
    upstream_requests: UpstreamRequests
    spool: Spool
    metrics: Metrics
    access_log: AccessLog
    unserved: UnservedRequests
    clock: Clock
    request_ids: RequestIds
    tracing: "Tracing | None" = None
    unguarded: Unguarded = field(default_factory=Unguarded)
    is_draining: bool = field(default=False)

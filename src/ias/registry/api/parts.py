"""How routes get at the service's parts, which `wiring` put into the app's state."""

from typing import Annotated

from ias.kit.cursors import Cursors
from ias.kit.parts import part
from ias.registry.core.adapters import Adapters
from ias.registry.core.backend_health import BackendHealths
from ias.registry.core.backends import Backends
from ias.registry.core.changes import Changes
from ias.registry.core.engine_tokens import EngineTokenSums
from ias.registry.core.models import Models
from ias.registry.core.route_policies import RoutePolicies
from ias.registry.core.route_table import RouteTables
from ias.registry.core.verification import Verifications

AdaptersPart = Annotated[Adapters, part("adapters")]
BackendHealthsPart = Annotated[BackendHealths, part("backend_healths")]
BackendsPart = Annotated[Backends, part("backends")]
ChangesPart = Annotated[Changes, part("changes")]
CursorsPart = Annotated[Cursors, part("cursors")]
EngineTokenSumsPart = Annotated[EngineTokenSums, part("engine_token_sums")]
ModelsPart = Annotated[Models, part("models")]
RoutePoliciesPart = Annotated[RoutePolicies, part("route_policies")]
RouteTablesPart = Annotated[RouteTables, part("route_tables")]
VerificationsPart = Annotated[Verifications, part("verifications")]

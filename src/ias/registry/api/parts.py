"""How routes get at the service's parts, which `wiring` put into the app's state."""

from typing import Annotated

from fastapi import Depends, Request

from ias.kit.cursors import Cursors
from ias.registry.core.adapters import Adapters
from ias.registry.core.backend_health import BackendHealths
from ias.registry.core.backends import Backends
from ias.registry.core.changes import Changes
from ias.registry.core.engine_tokens import EngineTokenSums
from ias.registry.core.models import Models
from ias.registry.core.route_policies import RoutePolicies
from ias.registry.core.route_table import RouteTables
from ias.registry.core.verification import Verifications


async def _adapters(request: Request) -> Adapters:
    part: Adapters = request.app.state.adapters
    return part


async def _backend_healths(request: Request) -> BackendHealths:
    part: BackendHealths = request.app.state.backend_healths
    return part


async def _backends(request: Request) -> Backends:
    part: Backends = request.app.state.backends
    return part


async def _changes(request: Request) -> Changes:
    part: Changes = request.app.state.changes
    return part


async def _cursors(request: Request) -> Cursors:
    part: Cursors = request.app.state.cursors
    return part


async def _engine_token_sums(request: Request) -> EngineTokenSums:
    part: EngineTokenSums = request.app.state.engine_token_sums
    return part


async def _models(request: Request) -> Models:
    part: Models = request.app.state.models
    return part


async def _route_policies(request: Request) -> RoutePolicies:
    part: RoutePolicies = request.app.state.route_policies
    return part


async def _route_tables(request: Request) -> RouteTables:
    part: RouteTables = request.app.state.route_tables
    return part


async def _verifications(request: Request) -> Verifications:
    part: Verifications = request.app.state.verifications
    return part


AdaptersPart = Annotated[Adapters, Depends(_adapters)]
BackendHealthsPart = Annotated[BackendHealths, Depends(_backend_healths)]
BackendsPart = Annotated[Backends, Depends(_backends)]
ChangesPart = Annotated[Changes, Depends(_changes)]
CursorsPart = Annotated[Cursors, Depends(_cursors)]
EngineTokenSumsPart = Annotated[EngineTokenSums, Depends(_engine_token_sums)]
ModelsPart = Annotated[Models, Depends(_models)]
RoutePoliciesPart = Annotated[RoutePolicies, Depends(_route_policies)]
RouteTablesPart = Annotated[RouteTables, Depends(_route_tables)]
VerificationsPart = Annotated[Verifications, Depends(_verifications)]

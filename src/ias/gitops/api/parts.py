"""How routes get at the service's parts, which `wiring` put into the app's state."""

from typing import Annotated

from fastapi import Depends, Request

from ias.gitops.core.plans import Plans
from ias.kit.cursors import Cursors


async def _cursors(request: Request) -> Cursors:
    part: Cursors = request.app.state.cursors
    return part


async def _plans(request: Request) -> Plans:
    part: Plans = request.app.state.plans
    return part


CursorsPart = Annotated[Cursors, Depends(_cursors)]
PlansPart = Annotated[Plans, Depends(_plans)]

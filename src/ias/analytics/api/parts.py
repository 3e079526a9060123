"""How routes get at the service's parts, which `wiring` put into the app's state."""

from typing import Annotated

from fastapi import Depends, Request

from ias.analytics.core.usage import Usage
from ias.kit.cursors import Cursors


async def _usage(request: Request) -> Usage:
    part: Usage = request.app.state.usage
    return part


async def _cursors(request: Request) -> Cursors:
    part: Cursors = request.app.state.cursors
    return part


UsagePart = Annotated[Usage, Depends(_usage)]
CursorsPart = Annotated[Cursors, Depends(_cursors)]

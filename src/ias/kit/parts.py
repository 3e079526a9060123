"""How routes get at a service's parts, which its `wiring` puts into the app's state.

BudgetsPart = Annotated[Budgets, part("budgets")]
"""

from typing import Any

from fastapi import Depends, Request


def part(name: str) -> Any:
    """A route's dependency on `app.state.NAME`. On the event loop: FastAPI calls plain functions in a thread."""

    async def get(request: Request) -> Any:
        return getattr(request.app.state, name)

    return Depends(get)

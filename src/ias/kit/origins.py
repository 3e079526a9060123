"""Where a request came from, for routes that write down what they do."""

from typing import Annotated

from fastapi import Depends, Request

from ias.kit.audit import Origin


def origin_of(request: Request) -> Origin:
    """The request's id, the address it came from, and what its client calls itself."""
    return Origin(
        request_id=request.state.request_id,
        source_ip=request.client.host if request.client else None,
        user_agent=request.headers.get("user-agent"),
    )


OriginOf = Annotated[Origin, Depends(origin_of)]

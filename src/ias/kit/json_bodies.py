"""JSON of a request's body, read strictly: what it says, it says once.

A name that comes twice means one thing to this parser and another to the proxy or the client that looked at the body before it
(RFC 8259, section 4: what then happens is unpredictable), and NaN is no JSON at all.
"""

import json
from typing import Any

from fastapi import Request

from ias.kit.problems import BadRequestError, FieldError

_NAME_CHARACTERS_MAX = 100


class StrictRequest(Request):
    """A request whose `json()` raises `BadRequestError` for a name that an object has twice, and for NaN and infinities."""

    async def json(self) -> Any:
        """The body as JSON. Raises what `json.loads` raises, too."""
        return json.loads(await self.body(), object_pairs_hook=_build_object, parse_constant=_refuse_constant)


def _build_object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    built: dict[str, Any] = {}
    for name, value in members:
        if name in built:
            detail = f"An object of the body says {name[:_NAME_CHARACTERS_MAX]!r} more than once."
            raise BadRequestError(detail, code="duplicate_field", errors=[FieldError(pointer="", detail=detail)])
        built[name] = value
    return built


def _refuse_constant(constant: str) -> None:
    raise BadRequestError(f"The body is not valid JSON: {constant}.", code="invalid_json")

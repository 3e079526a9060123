"""Errors of the management APIs, and their form on the wire: `application/problem+json` (RFC 9457).

    ProblemError
    ├── BadRequestError 400        a cursor that was tampered with, JSON that does not parse
    ├── UnauthenticatedError 401   no token, or one that is not valid (any more)
    ├── ForbiddenError 403         known, but not allowed
    ├── NotFoundError 404          absent, or of an org the caller cannot see: the answers are the same bytes
    ├── ConflictError 409          the state forbids it
    ├── PreconditionFailedError 412  the resource is not (any more) at the version that `If-Match` names
    ├── TooLargeError 413
    ├── QueryTooLongError 414
    ├── InvalidError 422           well-formed but wrong; `errors` names each field
    ├── TooManyRequestsError 429
    ├── HeadersTooLargeError 431
    └── UnavailableError 503       something this service needs is away

Services raise these from `core`; `kit.web` renders them. Nothing here knows a web framework.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import BaseModel


class FieldError(BaseModel):
    """One field that is wrong. `pointer` is a JSON pointer into the body, or the name of a parameter."""

    pointer: str
    detail: str


class Problem(BaseModel):
    """The body of every error answer."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[FieldError]


class ProblemError(Exception):
    """An error with something to say to the caller. The message is public: no secrets, no internals."""

    status: ClassVar[int] = 500
    code: str = "internal"
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        errors: Sequence[FieldError] = (),
        headers: dict[str, str] | None = None,
        org_id: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.errors = list(errors)
        self.headers = headers or {}
        self.org_id = org_id
        """The org whose wall the caller ran into, for the audit log; the answer does not say it."""

    def render(self, instance: str) -> Problem:
        """The body for the path that was asked for."""
        return Problem(
            type=f"urn:ias:problem:{self.code}",
            title=self.title,
            status=self.status,
            detail=self.detail,
            instance=instance,
            code=self.code,
            errors=self.errors,
        )


class BadRequestError(ProblemError):
    """The request cannot be understood."""

    status, code, title = 400, "bad_request", "Bad request"


class UnauthenticatedError(ProblemError):
    """Nobody is known to be asking."""

    status, code, title = 401, "unauthenticated", "Authentication required"

    def __init__(self, detail: str = "A valid bearer token is required.", **more: Any) -> None:
        super().__init__(detail, **more)
        self.headers.setdefault("WWW-Authenticate", "Bearer")


class ForbiddenError(ProblemError):
    """The caller is known and lacks the permission."""

    status, code, title = 403, "forbidden", "Not allowed"


class NotFoundError(ProblemError):
    """Absent, or invisible to the caller. One message for both: existence must not leak."""

    status, code, title = 404, "not_found", "Not found"

    def __init__(self, detail: str = "There is no such resource.", **more: Any) -> None:
        super().__init__(detail, **more)


class ConflictError(ProblemError):
    """The state of the resource forbids the change."""

    status, code, title = 409, "conflict", "Conflict"


class PreconditionFailedError(ProblemError):
    """The resource was changed since the caller looked at it."""

    status, code, title = 412, "precondition_failed", "Precondition failed"


class TooLargeError(ProblemError):
    """The body is over the limit."""

    status, code, title = 413, "too_large", "Body too large"


class QueryTooLongError(ProblemError):
    """The query is over the limit."""

    status, code, title = 414, "query_too_long", "Query too long"


class InvalidError(ProblemError):
    """Well-formed, but at least one field is wrong."""

    status, code, title = 422, "invalid", "Invalid request"


class TooManyRequestsError(ProblemError):
    """The caller must wait."""

    status, code, title = 429, "too_many_requests", "Too many requests"


class HeadersTooLargeError(ProblemError):
    """The headers are over the limit."""

    status, code, title = 431, "headers_too_large", "Headers too large"


class UnavailableError(ProblemError):
    """Something this service needs is away; trying again later helps."""

    status, code, title = 503, "unavailable", "Temporarily unavailable"

    def __init__(self, detail: str, **more: Any) -> None:
        super().__init__(detail, **more)
        self.headers.setdefault("Retry-After", "1")

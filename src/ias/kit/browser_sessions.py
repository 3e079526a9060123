"""Sessions of browsers: the tokens travel in cookies that no script can read, and a foreign page can do nothing with them.

The cookies are `__Host-` (this host alone, the whole host, encrypted transport), `HttpOnly` and `SameSite=Strict`. A request
that changes something and proves itself by cookie must also carry the header `x-ias-csrf: 1`, which a page of another origin
cannot send without being asked first (CORS, which is granted to nobody), and must not say that it comes from elsewhere.
"""

from datetime import UTC, datetime
from urllib.parse import urlsplit

from fastapi import Request, Response

from ias.kit.problems import ForbiddenError

ACCESS_COOKIE = "__Host-ias-access"
REFRESH_COOKIE = "__Host-ias-refresh"
CSRF_HEADER = "x-ias-csrf"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_PART_CHARACTERS_MAX = 3800
"""Browsers keep up to 4096 bytes of a cookie, its name and attributes included; a longer token is laid out over several."""
_PARTS_MAX = 8


def find_access_token(request: Request) -> str | None:
    """The access token that a browser sent along.

    Raises:
        ForbiddenError: the request changes something and may come from a foreign page.
    """
    token = _join(request)
    if token and request.method not in _SAFE_METHODS:
        refuse_foreign_page(request)
    return token or None


def find_refresh_token(request: Request) -> str | None:
    """The refresh token that a browser sent along. Raises as `find_access_token` does."""
    token = request.cookies.get(REFRESH_COOKIE)
    if token:
        refuse_foreign_page(request)
    return token or None


def refuse_foreign_page(request: Request) -> None:
    """Return when the request comes from a page of this very origin, or from no browser.

    Raises:
        ForbiddenError: it does not, or does not carry the header that says it means it.
    """
    if request.headers.get(CSRF_HEADER) != "1":
        raise ForbiddenError(f"A request that signs in by cookie needs the header `{CSRF_HEADER}: 1`.", code="csrf")
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    is_same_host = origin is None or urlsplit(origin).netloc == request.headers.get("host")
    # What the browser itself says of the page goes first: a proxy may have changed the Host header.
    if not (is_same_host if site is None else site == "same-origin"):
        raise ForbiddenError("This request comes from a page of another origin.", code="csrf")


def set_cookies(
    request: Request,
    response: Response,
    *,
    access_token: str,
    expires_at: datetime,
    refresh_token: str | None,
    session_expires_at: datetime,
) -> None:
    """Give the browser its tokens. Without a refresh token it keeps the one it has."""
    parts = [access_token[at : at + _PART_CHARACTERS_MAX] for at in range(0, len(access_token), _PART_CHARACTERS_MAX)]
    for number, part in enumerate(parts):
        _set(response, _part_name(number), part, expires_at)
    _delete(request, response, [_part_name(number) for number in range(len(parts), _PARTS_MAX)])
    if refresh_token is not None:
        _set(response, REFRESH_COOKIE, refresh_token, session_expires_at)


def set_passing_cookie(response: Response, name: str, value: str, *, lifetime_s: int) -> None:
    """Let the browser keep a secret for a step of signing in, as well guarded as its tokens."""
    response.set_cookie(name, value, max_age=lifetime_s, path="/", secure=True, httponly=True, samesite="strict")


def delete_passing_cookie(response: Response, name: str) -> None:
    """Let the browser forget it."""
    response.delete_cookie(name, path="/", secure=True, httponly=True, samesite="strict")


def delete_cookies(request: Request, response: Response) -> None:
    """Let the browser forget its tokens."""
    _delete(request, response, [REFRESH_COOKIE, *(_part_name(number) for number in range(_PARTS_MAX))])


def _join(request: Request) -> str:
    token = ""
    for number in range(_PARTS_MAX):
        part = request.cookies.get(_part_name(number))
        if part is None:
            break
        token += part
    return token


def _part_name(number: int) -> str:
    return f"{ACCESS_COOKIE}-{number}" if number else ACCESS_COOKIE


def _set(response: Response, name: str, value: str, expires_at: datetime) -> None:
    age_s = max(0, int((expires_at - datetime.now(UTC)).total_seconds()))
    response.set_cookie(name, value, max_age=age_s, path="/", secure=True, httponly=True, samesite="strict")


def _delete(request: Request, response: Response, names: list[str]) -> None:
    for name in names:
        if name in request.cookies:
            response.delete_cookie(name, path="/", secure=True, httponly=True, samesite="strict")

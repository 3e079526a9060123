"""Tokens in cookies."""

from datetime import UTC, datetime, timedelta

import pytest
from fastapi import Request, Response

from ias.kit.browser_sessions import delete_cookies, find_access_token, set_cookies


def request_with(cookies: dict[str, str], method: str = "GET") -> Request:
    header = "; ".join(f"{name}={value}" for name, value in cookies.items()).encode()
    return Request({"type": "http", "method": method, "headers": [(b"cookie", header)]})


def kept(cookies: dict[str, str], response: Response) -> dict[str, str]:
    """What a browser keeps that had these cookies."""
    for cookie in response.headers.getlist("set-cookie"):
        assert len(cookie) <= 4096
        name, _, value = cookie.split("; ")[0].partition("=")
        if "Max-Age=0" in cookie:
            cookies.pop(name)
        else:
            cookies[name] = value
    return cookies


def test_a_token_of_any_length_comes_back_whole_and_the_longer_one_before_it_leaves_nothing() -> None:
    cookies: dict[str, str] = {}
    later = datetime.now(UTC) + timedelta(minutes=10)
    for length in (100, 20_000, 3800, 3801):
        token, response = "x" * length, Response()
        set_cookies(
            request_with(cookies),
            response,
            access_token=token,
            expires_at=later,
            refresh_token="r",
            session_expires_at=later,
        )
        cookies = kept(cookies, response)
        assert find_access_token(request_with(cookies)) == token
    response = Response()
    delete_cookies(request_with(cookies), response)
    assert kept(cookies, response) == {}


@pytest.mark.parametrize("cookies", [{}, {"__Host-ias-access-1": "tail"}, {"ias-access": "x"}])
def test_what_is_no_token_is_none(cookies: dict[str, str]) -> None:
    assert find_access_token(request_with(cookies, "POST")) is None

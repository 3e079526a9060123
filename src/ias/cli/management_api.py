"""The management APIs, as commands call them: with an access token, a deadline, and one line for whatever goes wrong."""

import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

import click

from ias.cli.failures import UNAVAILABLE, CommandError

_TIMEOUT_S = 60.0
_CHUNK_BYTES = 65_536
_ERRORS_SHOWN = 5
_PAGE_SIZE = 200
_PAGES_MAX = 100


def management_options(service: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """`--url` and `--token-file`, for a command that talks to a service."""
    token = click.option(
        "--token-file", type=click.File("r"), help="File with an access token.  [default: the variable IAS_TOKEN]"
    )
    url = click.option(
        "--url",
        envvar=f"IAS_{service.upper()}_URL",
        default="http://127.0.0.1:8080",
        show_default=True,
        help=f"{service.capitalize()}.",
    )
    return lambda command: url(token(command))


class ManagementApi:
    """Calls of one command. Whatever is no success is raised as `CommandError`."""

    def __init__(self, url: str, token_file: IO[str] | None) -> None:
        token = (token_file.read() if token_file else os.environ.get("IAS_TOKEN", "")).strip()
        if not token:
            raise CommandError("an access token is needed", advice="set IAS_TOKEN or give --token-file")
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"}

    def get(self, path: str, parameters: Mapping[str, str] | None = None) -> dict[str, Any]:
        """One object."""
        return self._ask("GET", path, None, parameters or {})

    def list(self, path: str, parameters: Mapping[str, str] | None = None) -> Iterator[dict[str, Any]]:
        """All objects of a list, page after page."""
        asked = {"limit": str(_PAGE_SIZE), **(parameters or {})}
        for _ in range(_PAGES_MAX):
            page = self._ask("GET", path, None, asked)
            yield from page["data"]
            if page["next_cursor"] is None:
                return
            asked["cursor"] = page["next_cursor"]
        raise CommandError(f"{self._url}{path} lists more than {_PAGE_SIZE * _PAGES_MAX}")

    def post(self, path: str, body: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """Make or do something; the answer."""
        return self._ask("POST", path, body, {"dry_run": "true"} if dry_run else {})

    def patch(self, path: str, body: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """Change something; the answer."""
        return self._ask("PATCH", path, body, {"dry_run": "true"} if dry_run else {})

    def delete(self, path: str, *, dry_run: bool = False) -> dict[str, Any]:
        """Take something away; what a dry run says, or nothing."""
        return self._ask("DELETE", path, None, {"dry_run": "true"} if dry_run else {})

    def stream(self, path: str, parameters: dict[str, str]) -> Iterator[bytes]:
        """The parts of an answer that may be long."""
        httpx = importlib.import_module("httpx")
        try:
            with httpx.stream(
                "GET", self._url + path, params=parameters, headers=self._headers, timeout=_TIMEOUT_S
            ) as answer:
                if not answer.is_success:
                    answer.read()
                    raise self._refused(path, answer)
                yield from answer.iter_bytes(_CHUNK_BYTES)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._away(path, error) from error

    def _ask(self, method: str, path: str, body: Any, parameters: Mapping[str, str]) -> dict[str, Any]:
        httpx = importlib.import_module("httpx")
        try:
            answer = httpx.request(
                method, self._url + path, json=body, params=parameters, headers=self._headers, timeout=_TIMEOUT_S
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._away(path, error) from error
        if not answer.is_success:
            raise self._refused(path, answer)
        try:
            told: dict[str, Any] = answer.json() if answer.content else {}
        except ValueError as error:
            raise self._away(path, error) from error
        return told

    def _away(self, path: str, error: Exception) -> CommandError:
        return CommandError(f"{self._url}{path} gave no whole answer ({type(error).__name__})", exit_code=UNAVAILABLE)

    def _refused(self, path: str, answer: Any) -> CommandError:
        try:
            told = answer.json()
            wrong = [f"{error['pointer']}: {error['detail']}" for error in told["errors"][:_ERRORS_SHOWN]]
            detail = "; ".join(wrong) or str(told["detail"])
        except (ValueError, KeyError, TypeError):
            detail = str(answer.text[:200])
        return CommandError(f"{self._url}{path} answered {answer.status_code}: {detail}")

"""Billing's API, as commands call it: with an access token, a deadline, and one line for whatever goes wrong."""

import importlib
import os
from collections.abc import Callable, Iterator
from typing import IO, Any

import click

from ias.cli.failures import UNAVAILABLE, CommandError

_TIMEOUT_S = 60.0
_CHUNK_BYTES = 65_536
_ERRORS_SHOWN = 5


def billing_options(command: Callable[..., None]) -> Callable[..., None]:
    """`--url` and `--token-file`, for a command that talks to billing."""
    token = click.option(
        "--token-file", type=click.File("r"), help="File with an access token.  [default: the variable IAS_TOKEN]"
    )
    url = click.option(
        "--url", envvar="IAS_BILLING_URL", default="http://127.0.0.1:8080", show_default=True, help="Billing."
    )
    return url(token(command))


class BillingApi:
    """Calls of one command."""

    def __init__(self, url: str, token_file: IO[str] | None) -> None:
        token = (token_file.read() if token_file else os.environ.get("IAS_TOKEN", "")).strip()
        if not token:
            raise CommandError("an access token is needed", advice="set IAS_TOKEN or give --token-file")
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"}

    def post(self, path: str, body: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """Send a write; the answer. Raises `CommandError` for everything else."""
        httpx = importlib.import_module("httpx")
        parameters = {"dry_run": "true"} if dry_run else {}
        try:
            answer = httpx.post(
                self._url + path, json=body, params=parameters, headers=self._headers, timeout=_TIMEOUT_S
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._away(path, error) from error
        if not answer.is_success:
            raise self._refused(path, answer)
        told: dict[str, Any] = answer.json()
        return told

    def stream(self, path: str, parameters: dict[str, str]) -> Iterator[bytes]:
        """The parts of an answer that may be long. Raises as `post` does."""
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

"""`ias audit`: the audit log as a file, and the proof that nobody changed it."""

import importlib
import json
import os
from pathlib import Path
from typing import IO, Any

import click

from ias.cli.failures import UNAVAILABLE, CommandError
from ias.cli.output_files import open_output

_TIMEOUT_S = 30.0
_KEYS_BYTES_MAX = 1_000_000
_CHUNK_BYTES = 65_536


@click.group()
def audit() -> None:
    """Export the audit log, and prove an export."""


@audit.command()
@click.argument("file", type=click.File("rb"))
@click.option(
    "--jwks",
    required=True,
    metavar="FILE|URL",
    help="Identity's public keys: `/identity/v1/.well-known/audit-jwks.json`, or a copy of it.",
)
@click.option(
    "--earlier", type=click.File("rb"), help="An older export of the same log, whose checkpoints must still hold."
)
@click.option("--partial", is_flag=True, help="The export was filtered: entries may be left out.")
def verify(file: IO[bytes], jwks: str, earlier: IO[bytes] | None, partial: bool) -> None:
    """Prove that FILE (NDJSON; `-` is stdin) is the log as it was written. Needs no platform, only its public keys.

    Exit codes: 0 intact; 1 broken, and the line says where first; 2 wrong usage; 3 the keys cannot be had.
    """
    verification = importlib.import_module("ias.cli.audit_verification")
    try:
        keys = verification.read_key_set(_read_keys(jwks))
        seen = verification.read_checkpoints(earlier, keys) if earlier else []
        proof = verification.verify(file, keys, earlier=seen, partial=partial)
    except verification.BrokenError as broken:
        raise CommandError(
            f"{file.name} is broken: {broken}", advice="docs/runbooks/audit.md says what to do"
        ) from broken
    except ValueError as error:
        raise CommandError(f"{jwks} holds {error}", exit_code=UNAVAILABLE) from error
    gaps = f", with {proof.gaps} gaps that a filter may have left" if partial else ""
    click.echo(
        f"intact: {proof.entries} entries of chain {proof.chain_id} up to number {proof.last_sequence}{gaps};"
        f" its end was signed at {proof.signed_at}"
    )


@audit.command()
@click.option("--org", metavar="ID", help="The org; without it the platform's own log, for platform admins.")
@click.option("--url", envvar="IAS_IDENTITY_URL", default="http://127.0.0.1:8080", show_default=True, help="Identity.")
@click.option(
    "--token-file", type=click.File("r"), help="File with an access token.  [default: the variable IAS_TOKEN]"
)
@click.option("--format", "file_format", type=click.Choice(["ndjson", "csv"]), default="ndjson", show_default=True)
@click.option(
    "--filter", "filters", multiple=True, metavar="NAME=VALUE", help="As the API's: action=api_key.revoke, start=…"
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write.  [default: stdout]")
def export(
    *,
    org: str | None,
    url: str,
    token_file: IO[str] | None,
    file_format: str,
    filters: tuple[str, ...],
    output: Path | None,
) -> None:
    """Write the audit log to a file. A file that could not be completed is removed again."""
    token = (token_file.read() if token_file else os.environ.get("IAS_TOKEN", "")).strip()
    if not token:
        raise CommandError("an access token is needed", advice="set IAS_TOKEN or give --token-file")
    wrong = [text for text in filters if "=" not in text]
    if wrong:
        raise click.UsageError(f"--filter takes NAME=VALUE, not {wrong[0]!r}")
    asked = dict(text.split("=", 1) for text in filters)
    path = f"/identity/v1/orgs/{org}/audit-log/export" if org else "/identity/v1/audit-log/export"
    with open_output(output) as target:
        _download(url.rstrip("/") + path, {**asked, "format": file_format}, token, target)


def _download(url: str, parameters: dict[str, str], token: str, target: IO[bytes]) -> None:
    httpx = importlib.import_module("httpx")
    headers = {"Authorization": f"Bearer {token}"}
    try:
        with httpx.stream("GET", url, params=parameters, headers=headers, timeout=_TIMEOUT_S) as answer:
            if not answer.is_success:
                answer.read()
                raise CommandError(f"{url} answered {answer.status_code}: {_detail(answer)}")
            for chunk in answer.iter_bytes(_CHUNK_BYTES):
                target.write(chunk)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise CommandError(f"{url} gave no whole answer ({type(error).__name__})", exit_code=UNAVAILABLE) from error


def _detail(answer: Any) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return str(answer.text[:200])


def _read_keys(place: str) -> Any:
    """The document at a URL or in a file."""
    httpx = importlib.import_module("httpx")
    try:
        if place.startswith(("https://", "http://")):
            answer = httpx.get(place, timeout=_TIMEOUT_S)
            answer.raise_for_status()
            return answer.json()
        with Path(place).open("rb") as file:
            return json.loads(file.read(_KEYS_BYTES_MAX))
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise CommandError(
            f"the keys at {place} cannot be read ({type(error).__name__})", exit_code=UNAVAILABLE
        ) from error

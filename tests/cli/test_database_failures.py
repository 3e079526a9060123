"""What a real server refuses is told with the setting's name and never with its value."""

import secrets
from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit

import pytest
from click.testing import CliRunner

from ias.cli.migrate import migrate


def run_migrate(monkeypatch: pytest.MonkeyPatch, url: str, *options: str) -> tuple[int, str]:
    monkeypatch.setenv("IAS_IDENTITY_DATABASE_URL", url)
    ran = CliRunner().invoke(migrate, ["identity", *options])
    return ran.exit_code, ran.output


def test_a_database_that_is_not_there_is_named_by_its_setting(monkeypatch: pytest.MonkeyPatch, postgres_url: str):
    missing = urlunsplit(urlsplit(postgres_url)._replace(path=f"/absent_{secrets.token_hex(4)}"))
    status, output = run_migrate(monkeypatch, missing)
    assert status == 1
    assert "the database of identity (IAS_IDENTITY_DATABASE_URL) does not exist on its server" in output
    assert output.count("\n") == 1


def test_a_revision_that_is_unknown_is_one_line(monkeypatch: pytest.MonkeyPatch, make_database: Callable[[str], str]):
    status, output = run_migrate(monkeypatch, make_database("identity"), "--revision", "nonsense")
    assert status == 1
    assert "nonsense" in output
    assert output.count("\n") == 1

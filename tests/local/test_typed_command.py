"""A command that is printed can be typed as it stands, wherever `ias` was installed."""

import shlex
import stat
import sys
from pathlib import Path

import pytest

from ias.local.typed_command import typed


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An `ias` that runs now, in a checkout, with nothing on PATH."""
    path = tmp_path / "checkout" / ".venv" / "bin" / "ias"
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "argv", [str(path), "up"])
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path / "checkout")
    return path


@pytest.mark.usefixtures("program")
def test_what_is_not_on_the_path_is_named_from_here():
    assert typed("down", "--data-dir", "/data") == ".venv/bin/ias down --data-dir /data"


def test_what_is_on_the_path_is_named_by_its_name(program: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(program.parent))
    assert typed("status") == "ias status"


def test_another_ias_on_the_path_is_not_meant(program: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    other = tmp_path / "ias"
    other.write_bytes(program.read_bytes())
    other.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert typed("status") == ".venv/bin/ias status"


def test_from_elsewhere_the_whole_path_is_named(program: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir("/")
    assert typed("status") == f"{program} status"


@pytest.mark.usefixtures("program")
def test_a_place_with_a_blank_is_one_word():
    assert shlex.split(typed("down", "--data-dir", "/my data")) == [".venv/bin/ias", "down", "--data-dir", "/my data"]

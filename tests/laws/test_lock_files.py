"""The lock files: exact, hashed, and silent about where packages come from."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCK_FILES = sorted((ROOT / "requirements").glob("*.txt"))


@pytest.mark.parametrize("path", LOCK_FILES, ids=lambda path: path.name)
def test_a_lock_file_holds_no_address_and_a_hash_for_everything(path: Path) -> None:
    text = path.read_text()
    assert "://" not in text
    requirements = text.replace("\\\n", " ").splitlines()
    assert requirements
    for requirement in requirements:
        assert re.match(r"[a-z0-9._-]+(\[[a-z0-9,._-]+\])?==\S+", requirement, re.IGNORECASE), requirement
        assert "--hash=sha256:" in requirement


def test_everything_that_is_declared_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = {
        "runtime.txt": project["project"]["dependencies"],
        "dev.txt": [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]],
        "bootstrap.txt": project["dependency-groups"]["bootstrap"],
        "servers.txt": project["project"]["optional-dependencies"]["servers"],
    }
    for name, requirements in declared.items():
        locked = {normal(line) for line in (ROOT / "requirements" / name).read_text().splitlines() if "==" in line}
        assert {normal(requirement) for requirement in requirements} <= locked, name


def test_both_lock_files_agree_on_every_version() -> None:
    runtime, dev = (
        dict(re.findall(r"^([a-zA-Z0-9._-]+)==(\S+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE))
        for name in ("runtime.txt", "dev.txt")
    )
    assert {name: version for name, version in runtime.items() if dev.get(name) != version} == {}


def normal(requirement: str) -> str:
    return re.split(r"[\s\[=<>;~!]", requirement, maxsplit=1)[0].lower().replace("_", "-")

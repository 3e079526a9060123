"""The compiled build is used for exactly the sources it was made of, and its list of modules is true."""

import ast
from pathlib import Path

import pytest

from ias.gateway import compiled

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "ias"


def test_a_build_of_other_sources_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "BUILD", tmp_path)
    assert compiled.find_compiled() is None
    package = Path(compiled.__file__).parents[1]
    (tmp_path / compiled.STAMP).write_text(compiled.fingerprint(package))
    assert compiled.find_compiled() == tmp_path
    (tmp_path / compiled.STAMP).write_text("another")
    assert compiled.find_compiled() is None


def test_a_fingerprint_tells_contents_and_names(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    first = compiled.fingerprint(tmp_path)
    assert compiled.fingerprint(tmp_path) == first
    (tmp_path / "a.py").write_text("2")
    second = compiled.fingerprint(tmp_path)
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert len({first, second, compiled.fingerprint(tmp_path)}) == 3


def test_every_module_to_compile_is_there() -> None:
    tree = ast.parse((ROOT / "requirements" / "compile.py").read_text())
    (modules,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MODULES"
    )
    assert list(modules) == sorted(set(modules))
    assert [name for name in modules if not (PACKAGE / f"{name}.py").is_file()] == []

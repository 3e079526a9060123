"""What the documents say exists."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SKIPPED = {".venv", "node_modules", ".git", ".hypothesis", "dist"}
LINK = re.compile(r"\]\(([^)\s]+)\)")
NAME = re.compile(r"`([\w./-]+\.\w+)::([\w.]+)`")
TARGET = re.compile(r"`make ([a-z-]+)")
STEPS_MAX = 15


def list_documents() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.md") if not SKIPPED.intersection(path.relative_to(ROOT).parts))


def list_path_pages() -> list[Path]:
    return [path for path in sorted((ROOT / "docs" / "paths").glob("*.md")) if path.name != "README.md"]


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", list_path_pages(), ids=ids)
def test_every_name_on_a_path_page_exists(page: Path) -> None:
    names = NAME.findall(page.read_text())
    assert names, "a path page follows its path by `file::name`"
    missing = [f"{file}::{name}" for file, name in names if name not in names_in(file)]
    assert missing == []


def test_one_chat_completion_is_followed_in_a_few_lines() -> None:
    page = ROOT / "docs" / "paths" / "chat_completion.md"
    assert len(NAME.findall(page.read_text())) <= STEPS_MAX


@pytest.mark.parametrize("page", list_documents(), ids=ids)
def test_relative_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(without_code(page.read_text())):
        path = target.partition("#")[0]
        if path and "://" not in path and not path.startswith("mailto:") and not (page.parent / path).exists():
            broken.append(target)
    assert broken == []


def test_every_make_target_that_a_document_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {(ids(page), target) for page in list_documents() for target in TARGET.findall(page.read_text())}
    assert {(page, target) for page, target in named if target not in targets} == set()


def without_code(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def names_in(file: str) -> set[str]:
    """The functions, classes and `Class.method`s of a file, given from the root or from src/ias."""
    candidates = [ROOT / file, ROOT / "src" / "ias" / file]
    found = next((path for path in candidates if path.is_file()), None)
    assert found is not None, f"{file} does not exist"
    if found.suffix != ".py":
        return set(re.findall(r"[\w.]+", found.read_text()))
    return set(_qualified_names(ast.parse(found.read_text()).body, ""))


def _qualified_names(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield prefix + node.name
            yield from _qualified_names(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.Assign):
            yield from (prefix + target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield prefix + node.target.id

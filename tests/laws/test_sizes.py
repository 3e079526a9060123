"""Functions and files stay small enough to be read in one go.

Not measured: test functions, which tell a story in order, and migrations, which list columns.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("src", "tests", "contracts", "benchmarks", "deploy")
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 600

EXCEPTIONS: dict[str, tuple[int, str]] = {}
"""`path` or `path::function` → how many lines it has, and why. Lines may only fall, and entries may only leave."""


def measure() -> dict[str, int]:
    """Everything over a limit, with its lines."""
    sizes = {}
    for path in sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        name, text = str(path.relative_to(ROOT)), path.read_text()
        if (lines := text.count("\n")) > FILE_LINES_MAX:
            sizes[name] = lines
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX and not name.startswith("tests/") and "/migrations/" not in name:
                    sizes[f"{name}::{node.name}"] = lines
    return sizes


def test_what_is_over_a_limit_has_a_reason_and_has_not_grown() -> None:
    too_long = {
        name: lines for name, lines in measure().items() if name not in EXCEPTIONS or lines > EXCEPTIONS[name][0]
    }
    assert too_long == {}


def test_an_exception_that_is_no_longer_needed_leaves_the_list() -> None:
    assert set(EXCEPTIONS) - set(measure()) == set()

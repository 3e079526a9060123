"""Who may import whom, and what modules may not be called."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "ias"
NAMELESS = {"utils", "util", "helpers", "helper", "common", "manager", "managers", "base", "misc"}


def test_imports_stay_within_the_walls() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_module_is_named_after_nothing() -> None:
    assert [path for path in SOURCE.rglob("*") if path.stem in NAMELESS] == []

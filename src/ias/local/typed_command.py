"""How an `ias` command can be typed in the terminal that reads it: after `make up`, `ias` is in `.venv/bin` and not on PATH."""

import shlex
import shutil
import sys
from pathlib import Path


def typed(*arguments: str) -> str:
    """`ias` with these arguments, as a shell takes it: by its name where that leads here, else by its path."""
    return shlex.join([*_find_program(), *arguments])


def _find_program() -> list[str]:
    program = Path(sys.argv[0]).absolute()
    if program.name != "ias" or not program.is_file():
        program = Path(sys.executable).absolute().parent / "ias"
    if not program.is_file():
        return [sys.executable, "-m", "ias"]
    on_path = shutil.which("ias")
    if on_path is not None and program.samefile(on_path):
        return ["ias"]
    here = Path.cwd()
    # A supervisor in the background works in `/`, and whoever reads it is elsewhere.
    if here != Path("/") and program.is_relative_to(here):
        return [str(program.relative_to(here))]
    return [str(program)]

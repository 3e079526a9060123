"""The optional build of the hot modules by mypyc (`make compile`): where it is, and whether it may be used.

A copy of the whole package, beside the sources and never among them, so that nobody runs what was compiled of other sources
without knowing.
"""

import hashlib
import sys
from pathlib import Path

BUILD = Path(sys.prefix) / "compiled"
STAMP = "fingerprint"


def fingerprint(package: Path) -> str:
    """Of a package's sources and the interpreter they were compiled for."""
    digest = hashlib.sha256(sys.version.encode())
    for path in sorted(package.rglob("*")):
        if path.suffix in (".py", ".lua", ".json"):
            digest.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def find_compiled() -> Path | None:
    """The folder to put on PYTHONPATH; None where nothing was compiled, or not of exactly these sources."""
    try:
        stamp = (BUILD / STAMP).read_text()
    except OSError:
        return None
    return BUILD if stamp == fingerprint(Path(__file__).parents[1]) else None


def is_compiled() -> bool:
    """Whether this process runs the build."""
    return Path(__file__).is_relative_to(BUILD)

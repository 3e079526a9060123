"""Compile the gateway's hot modules with mypyc into .venv/compiled: a copy of the package beside the sources' own.

    python requirements/compile.py          (make compile)

Needs a C compiler, Python's headers, and the tools of `requirements/install.sh dev`. Nothing needs what it makes: the same
sources run interpreted, and a build that is not of exactly these sources is not used (`ias.gateway.compiled`).
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from mypyc.build import mypycify
from setuptools import setup

from ias.gateway.compiled import BUILD, STAMP, fingerprint

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "ias"

# What a request passes through. Left out: modules whose classes are made by msgspec or pydantic, which compile to nothing
# better, and what runs once a second or less.
MODULES = (
    "contracts/money",
    "gateway/access_log",
    "gateway/admission_plan",
    "gateway/admit",
    "gateway/authenticate",
    "gateway/authorize",
    "gateway/chunked",
    "gateway/clock",
    "gateway/connection",
    "gateway/context",
    "gateway/dispatch",
    "gateway/endpoints",
    "gateway/event_stream",
    "gateway/exchange",
    "gateway/json_splice",
    "gateway/known_body",
    "gateway/known_head",
    "gateway/metrics",
    "gateway/pipeline",
    "gateway/rate_limits",
    "gateway/read_body",
    "gateway/read_usage",
    "gateway/receive",
    "gateway/record",
    "gateway/record_lines",
    "gateway/redis_connection",
    "gateway/relay",
    "gateway/request_heads",
    "gateway/request_ids",
    "gateway/route",
    "gateway/routers",
    "gateway/routing/asks",
    "gateway/routing/candidates",
    "gateway/routing/explanations",
    "gateway/routing/fair_queue",
    "gateway/routing/loads",
    "gateway/routing/model_router",
    "gateway/routing/prefixes",
    "gateway/routing/strategies",
    "gateway/script_calls",
    "gateway/settle",
    "gateway/settlements",
    "gateway/snapshots",
    "gateway/spool",
    "gateway/sse",
    "gateway/stream_comments",
    "gateway/token_counts",
    "gateway/upstream",
    "gateway/upstream_request",
)


def build(directory: Path) -> None:
    """Copy the package to a directory and compile there."""
    stamp = fingerprint(PACKAGE)
    shutil.copytree(PACKAGE, directory / "ias", ignore=shutil.ignore_patterns("__pycache__"))
    os.chdir(directory)
    os.environ["MYPYPATH"] = str(directory)
    paths = [f"ias/{name}.py" for name in MODULES]
    extensions = mypycify(
        ["--config-file", str(ROOT / "pyproject.toml"), *paths],
        opt_level="3",
        debug_level="0",
        group_name="ias_gateway",
    )
    setup(name="ias-compiled", ext_modules=extensions, script_args=["-q", "build_ext", "--inplace"])
    shutil.rmtree("build")
    shutil.rmtree(".mypy_cache", ignore_errors=True)
    Path(STAMP).write_text(stamp)


def main() -> None:
    """Entry of the script."""
    if shutil.which(os.environ.get("CC", "cc")) is None:
        sys.exit("compile: there is no C compiler (on Debian: apt-get install gcc libc6-dev python3-dev)")
    with tempfile.TemporaryDirectory(dir=BUILD.parent) as scratch:
        build(Path(scratch) / "compiled")
        shutil.rmtree(BUILD, ignore_errors=True)
        (Path(scratch) / "compiled").rename(BUILD)
    subprocess.run(
        [sys.executable, "-c", "import ias.gateway.worker"], env={**os.environ, "PYTHONPATH": str(BUILD)}, check=True
    )
    print(f"compile: {len(MODULES)} modules in {BUILD}")


if __name__ == "__main__":
    main()

"""Other gateways that a package registry has, each installed into a folder of its own and started as its documentation says.

One worker each, the benchmark's backend behind it, and as little switched on as the program allows: none of them checks a
budget here. What cannot be installed is left out with a line that says so.

    sglang-router   PyPI `sglang-router` (Rust), round robin over one worker, retries and breaker as they are by default
    LiteLLM         PyPI `litellm[proxy]` (Python), one worker, a master key, no database, no callbacks
    Portkey         npm `@portkey-ai/gateway` (Node), headless, provider and custom host in a header
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.bench_stack import MODEL, Target, answers, free_port, process

_INSTALL_TIMEOUT_S = 600
_START_TIMEOUT_S = 90.0
_ROUND_MIN_S = 10
_PATH = "/v1/chat/completions"


@dataclass(frozen=True)
class Launch:
    """How an installed peer is started for a port and an upstream."""

    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    """What its clients have to send beside the request."""


@dataclass(frozen=True)
class Peer:
    """One gateway: what to install, and how to start it from the folder it was installed into."""

    name: str
    version: str
    install: Callable[[Path], None]
    launch: Callable[[Path, Path, int, int, str], Launch]
    """Of the installation, a folder for its files, its port, the backend's port and the key that clients send."""


class NotInstallableError(Exception):
    """The machine lacks an installer, or the installer failed."""


def cache_directory() -> Path:
    """Where installations are kept between runs, outside the repository."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ias-benchmarks"


def install(peer: Peer) -> Path:
    """The folder of the installed peer; installs it the first time.

    Raises:
        NotInstallableError: see there.
    """
    directory = cache_directory() / f"{peer.name.lower()}-{peer.version}"
    complete = directory / ".complete"
    if not complete.exists():
        print(f"installing {peer.name} {peer.version} into {directory} ...", file=sys.stderr, flush=True)
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        peer.install(directory)
        complete.touch()
    return directory


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S)
    except FileNotFoundError as error:
        raise NotInstallableError(f"there is no `{command[0]}` here") from error
    except subprocess.TimeoutExpired as error:
        raise NotInstallableError(f"not installed within {_INSTALL_TIMEOUT_S} s") from error
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or error.stdout or "").strip().splitlines()
        raise NotInstallableError(lines[-1] if lines else f"exit status {error.returncode}") from error


def _from_pypi(requirement: str) -> Callable[[Path], None]:
    def run(directory: Path) -> None:
        _run(sys.executable, "-m", "venv", "--without-pip", str(directory))
        python = str(directory / "bin" / "python")
        if shutil.which("uv"):
            _run("uv", "pip", "install", "--python", python, requirement)
        else:
            _run(python, "-m", "ensurepip")
            _run(python, "-m", "pip", "install", requirement)

    return run


def _from_npm(requirement: str) -> Callable[[Path], None]:
    def run(directory: Path) -> None:
        _run("npm", "install", "--prefix", str(directory), "--no-fund", "--no-audit", requirement)

    return run


def _launch_sglang(installed: Path, directory: Path, port: int, upstream_port: int, key: str) -> Launch:
    del directory, key
    options = f"--host 127.0.0.1 --port {port} --policy round_robin --log-level warn --prometheus-port {free_port()}"
    worker = ("--worker-urls", f"http://127.0.0.1:{upstream_port}")
    python = str(installed / "bin" / "python")
    return Launch((python, "-m", "sglang_router.launch_router", *options.split(), *worker))


def _launch_litellm(installed: Path, directory: Path, port: int, upstream_port: int, key: str) -> Launch:
    configuration = directory / "litellm.yaml"
    model = {"model": f"openai/{MODEL}", "api_base": f"http://127.0.0.1:{upstream_port}/v1", "api_key": "none"}
    document = {
        "model_list": [{"model_name": MODEL, "litellm_params": model}],
        "general_settings": {"master_key": key},
        "litellm_settings": {"telemetry": False},
    }
    configuration.write_text(json.dumps(document))  # JSON is YAML
    command = (str(installed / "bin" / "litellm"), "--config", str(configuration), "--host", "127.0.0.1")
    return Launch(
        (*command, "--port", str(port), "--num_workers", "1"),
        {"LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    )


def _launch_portkey(installed: Path, directory: Path, port: int, upstream_port: int, key: str) -> Launch:
    del directory, key
    script = installed / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    headers = {
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"http://127.0.0.1:{upstream_port}/v1",
    }
    environment = {"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost"}
    return Launch(("node", str(script), f"--port={port}", "--headless"), environment, headers)


PEERS = (
    Peer("sglang-router", "0.3.2", _from_pypi("sglang-router==0.3.2"), _launch_sglang),
    Peer("Portkey", "1.15.2", _from_npm("@portkey-ai/gateway@1.15.2"), _launch_portkey),
    Peer("LiteLLM", "1.106.2", _from_pypi("litellm[proxy]==1.106.2"), _launch_litellm),
)


@contextmanager
def run_peers(directory: Path, upstream_port: int, key: str) -> Iterator[tuple[Target, ...]]:
    """Every peer that can be installed and that answers a request, ready for load; a line for each that is left out."""
    with ExitStack() as stack:
        targets = []
        for peer in PEERS:
            try:
                installed = install(peer)
            except NotInstallableError as error:
                print(f"{peer.name} {peer.version} is left out: {error}", file=sys.stderr, flush=True)
                continue
            own = directory / peer.name.lower()
            own.mkdir()
            port = free_port()
            launch = peer.launch(installed, own, port, upstream_port, key)
            started = stack.enter_context(process(*launch.command, cwd=own, env={**os.environ, **launch.environment}))
            url = f"http://127.0.0.1:{port}{_PATH}"
            if answers(url, key=key, headers=launch.headers, timeout_s=_START_TIMEOUT_S):
                targets.append(Target(f"{peer.name} {peer.version}", started.pid, url, launch.headers, _ROUND_MIN_S))
            else:
                print(f"{peer.name} {peer.version} is left out: it answers no request (log: {own})", file=sys.stderr)
        yield tuple(targets)

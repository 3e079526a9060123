"""`ias engine llamacpp`: real, if tiny, weights behind OpenAI's API. Needs the extra `llamacpp`; CI goes without."""

import importlib.util
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from openai import OpenAI
from tests.engine.tiny_gguf import write_tiny_model
from tests.servers.launch import free_port

COMMAND = [sys.executable, "-c", "from ias.cli.main import main; main()", "engine", "llamacpp"]
installed = importlib.util.find_spec("xllamacpp") is not None
needs_llamacpp = pytest.mark.skipif(not installed, reason="the extra `llamacpp` is not installed")


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.skipif(installed, reason="the extra `llamacpp` is installed")
def test_without_the_extra_one_line_says_how_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    done = run("--model", str(tmp_path / "x.gguf"))
    assert done.returncode == 1
    assert done.stderr == ("ias engine llamacpp: llama.cpp is not installed; `pip install xllamacpp` installs it\n")


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    write_tiny_model(tmp_path / "tiny.gguf")
    port = free_port()
    options = ["--model", str(tmp_path / "tiny.gguf"), "--port", str(port), "--context-length", "256", "--threads", "1"]
    process = subprocess.Popen([*COMMAND, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                break
        except httpx.TransportError:
            time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


@needs_llamacpp
@pytest.mark.slow
def test_the_official_sdk_gets_answers_and_their_usage(url: str) -> None:
    client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    ask = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5, "seed": 1}
    assert [model.id for model in client.models.list()] == ["tiny"]
    answer = client.chat.completions.create(**ask)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    *_, last = client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True})
    assert last.usage is not None
    assert last.usage.prompt_tokens == answer.usage.prompt_tokens
    assert "llamacpp:tokens_predicted_total" in httpx.get(f"{url}/metrics").text


@needs_llamacpp
def test_what_is_no_model_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"something else")
    (tmp_path / "y.gguf").write_bytes(b"GGUF and nothing after it")
    for name in ("x", "y"):
        done = run("--model", str(tmp_path / f"{name}.gguf"))
        assert done.returncode == 1
        own = [line for line in done.stderr.splitlines() if line.startswith("ias engine llamacpp: ")]
        assert len(own) == 1  # among llama.cpp's log

"""The official Node SDK, unchanged, against a running gateway. Its tests are in node/sdk.test.mjs."""

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ias.contracts.api_keys import generate_key
from tests.gateway.conftest import StartGateway
from tests.gateway.platform import Pushed, RunningGateway, backends, budget, until
from tests.gateway.scripted_upstream import (
    Received,
    ScriptedUpstream,
    Session,
    answer_politely,
    chunk,
    completion,
)
from tests.servers.programs import find_or_install_npm

SOURCES = Path(__file__).parent / "node"
NPM_TIMEOUT_S = 90
TESTS_TIMEOUT_S = 60
COMMENT_S = 0.1
"""Silence after which the gateway sends comments, which the SDK must not notice; elsewhere they are tested to be off."""


@pytest.fixture
def node_project(tmp_path: Path) -> Path:
    """A directory with the tests and the SDK that the lock file names."""
    npm = find_or_install_npm()
    if npm is None:
        pytest.skip("there is no Node, and it cannot be installed (Debian, Ubuntu: apt-get install nodejs npm)")
    project = tmp_path / "node"
    shutil.copytree(SOURCES, project, ignore=shutil.ignore_patterns("node_modules"))
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
    installed = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=NPM_TIMEOUT_S, check=False)
    assert installed.returncode == 0, installed.stdout + installed.stderr
    return project


async def answer_as_asked(received: Received, session: Session) -> None:
    """A backend whose ways a request chooses by its `user`."""
    if received.path == "/v1/embeddings":
        assert received.document["encoding_format"] == "base64"
        data = [{"object": "embedding", "index": 0, "embedding": "AACAPwAAAEA="}]
        usage = {"prompt_tokens": 2, "total_tokens": 2}
        await session.send_json({"object": "list", "model": "m", "data": data, "usage": usage})
        return
    match received.document.get("user"):
        case "tools":
            await call_tools(session)
        case "hesitates":
            await hesitate(session)
        case "dies":
            await session.begin_stream()
            await session.event(chunk("a"))
            session.abort()
        case "endless":
            await session.begin_stream()
            while True:
                await session.event(chunk("a"))
                await asyncio.sleep(0.01)
        case "counted":
            await session.send_json(completion(id=received.headers["x-request-id"]))
        case _ if received.document.get("n") == 2:
            await stream_two_choices(session)
        case _:
            await answer_politely(received, session)


async def hesitate(session: Session) -> None:
    await session.begin_stream()
    for delta in ({"role": "assistant", "content": "Hel"}, {"content": "lo"}):
        await asyncio.sleep(COMMENT_S * 4)
        await session.event({**chunk(), "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    await session.event(chunk(finish="stop"))
    await session.end_stream()


async def stream_two_choices(session: Session) -> None:
    await session.begin_stream()
    for index in (0, 1):
        opening = {"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        await session.event({**chunk(), "choices": [opening]})
    for index in (1, 0):
        await session.event(chunk("a", index=index))
        await session.event(chunk(finish="stop", index=index))
    await session.end_stream()


async def call_tools(session: Session) -> None:
    await session.begin_stream()
    deltas: list[dict[str, object]] = [{"role": "assistant", "content": None}]
    for i in (0, 1):
        call = {"index": i, "id": f"c{i}", "type": "function", "function": {"name": f"f{i}", "arguments": ""}}
        deltas.append({"tool_calls": [call]})
    for part in ('{"é":', '"\\"', "{i}", '\\""}'):
        deltas += [
            {"tool_calls": [{"index": i, "function": {"arguments": part.replace("{i}", str(i))}}]} for i in (0, 1)
        ]
    for delta in deltas:
        await session.event({**chunk(), "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    await session.event(chunk(finish="tool_calls"))
    await session.end_stream()


async def prepare(gateway: RunningGateway, upstream: ScriptedUpstream) -> str:
    """Push what the tests need besides key and model `m`; a key whose budget is spent."""
    upstream.script = answer_as_asked
    await gateway.pushed.routes({"m": {"backends": backends(upstream.url)}, "meta/llama:8b": {}})
    poor = await gateway.pushed.api_key(generate_key(), key_id="key-2")
    await gateway.pushed.budgets(budget(1, kind="api_key", scope="key-2"))
    snapshots = gateway.worker.gateway.snapshots
    await until(lambda: snapshots.routes is not None and snapshots.routes.version == 2)
    return poor


@pytest.fixture
async def gateway(start_gateway: StartGateway, pushed: Pushed, upstream: ScriptedUpstream) -> RunningGateway:
    await pushed.everything(upstream.url)
    running = await start_gateway(gateway_stream_comment_s=COMMENT_S)
    await running.until_ready()
    return running


@pytest.mark.slow
async def test_the_node_sdk_is_served(gateway: RunningGateway, upstream: ScriptedUpstream, node_project: Path) -> None:
    environment = {
        **os.environ,
        "IAS_TEST_URL": gateway.base_url,
        "IAS_TEST_KEY": gateway.pushed.key,
        "IAS_TEST_POOR_KEY": await prepare(gateway, upstream),
    }
    process = await asyncio.create_subprocess_exec(
        "node", "--test", "sdk.test.mjs", cwd=node_project, env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = await asyncio.wait_for(process.communicate(), TESTS_TIMEOUT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output.decode()
    await gateway.until_nothing_is_held()

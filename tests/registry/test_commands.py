"""`ias models` and `ias backends`, against a registry and a simulated replica."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import pytest
import structlog
from click.testing import CliRunner, Result

from ias.cli.backends import backends
from ias.cli.models import models
from tests.billing.conftest import served
from tests.registry.conftest import RunningRegistry
from tests.registry.replicas import Replica
from tests.registry.upstream import COMPLETION, answering, http

Run = Callable[..., Awaitable[Result]]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The registry's own log would be among what the commands print: it is in this very process."""
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
async def run(registry: httpx.AsyncClient) -> AsyncIterator[Run]:
    """`await run("models", "list")` runs a command as a platform admin."""
    token = registry.headers["Authorization"].removeprefix("Bearer ")
    async with served(registry._transport.app) as url:  # type: ignore[attr-defined]

        async def invoke(group: str, *arguments: str, token: str = token) -> Result:
            environment = {"IAS_TOKEN": token, "IAS_REGISTRY_URL": url}
            command = {"models": models, "backends": backends}[group]
            return await asyncio.to_thread(CliRunner().invoke, command, arguments, env=environment)

        yield invoke


async def test_a_model_is_made_changed_deprecated_and_taken_away(run: Run) -> None:
    tried = await run("models", "create", "old", "--context-length", "8192", "--dry-run")
    assert "nothing was changed" in tried.output
    for arguments in (["old", "--alias", "fast", "--capability", "chat"], ["new"]):
        made = await run("models", "create", *arguments, "--context-length", "8192")
        assert made.exit_code == 0, made.output
    ended = ["--status", "deprecated", "--replacement", "new", "--sunset-at", "2030-01-01T00:00:00Z"]
    assert '"enabled" → "deprecated"' in (await run("models", "update", "old", *ended, "--dry-run")).output
    changed = await run("models", "update", "old", *ended, "--clear", "capabilities")
    assert 'status: "enabled" → "deprecated"' in changed.output, changed.output
    listed = (await run("models", "list")).output.splitlines()
    assert listed == ["enabled          8192  new", "deprecated       8192  old  (also fast)  → new"]
    shown = json.loads((await run("models", "show", "old")).output)
    assert (shown["capabilities"], shown["route_policy"]["strategy"]) == ([], "prefix")
    routed = await run("models", "route", "old", "--strategy", "weighted", "--sticky", "--queue-timeout-s", "2.5")
    assert 'strategy: "prefix" → "weighted"' in routed.output
    assert json.loads((await run("models", "route", "old")).output)["is_sticky"] is True
    refused = await run("models", "route", "old", "--canary-percent", "5")
    assert refused.exit_code == 1
    assert "/canary_percent: needs a backend of the group canary" in refused.output
    assert "0 backends would go with it" in (await run("models", "delete", "old", "--dry-run")).output
    assert (await run("models", "delete", "old")).exit_code == 0
    assert (await run("models", "list")).output == "enabled          8192  new\n"


async def test_a_backend_is_added_verified_drained_killed_and_taken_away(run: Run, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("sk-theirs\n")
    await run("models", "create", "tiny", "--context-length", "8192")
    async with answering(http(200, COMPLETION)) as upstream:
        added = await run(
            "backends", "add", "tiny", upstream.url, "--verify", "--credential-file", str(key), "--tier", "1"
        )
        assert added.exit_code == 0, added.output
        assert b"authorization: bearer sk-theirs" in upstream.requests[0].lower()
        backend_id, verified = added.output.splitlines()
        assert verified.startswith("The backend completed.")
        assert "3 tokens" in (await run("backends", "verify", backend_id)).output
    failed = await run("backends", "verify", backend_id)
    assert (failed.exit_code, "There was no usable answer" in failed.output) == (1, True)
    drained = await run("backends", "drain", backend_id, "--reason", "new drivers")
    assert drained.output == "draining: false → true\n"
    assert 'status: "enabled" → "disabled"' in (await run("backends", "disable", backend_id, "--dry-run")).output
    for switch in ("disable", "enable", "resume"):
        assert (await run("backends", switch, backend_id)).exit_code == 0
    changed = await run("backends", "update", backend_id, "--weight", "0", "--backend-url", "http://127.0.0.1:7/v1")
    assert "weight: 1 → 0" in changed.output
    (line,) = (await run("backends", "list", "tiny")).output.splitlines()
    assert line == f"{backend_id}  unknown    http://127.0.0.1:7/v1  (tier 1, stable, weight 0)"
    assert "no prober has told anything yet" in (await run("backends", "health", backend_id)).output
    assert (await run("backends", "delete", backend_id)).exit_code == 0
    assert (await run("backends", "list", "tiny")).output == ""


async def test_a_backend_that_fails_its_verification_stays_out_of_service(run: Run) -> None:
    await run("models", "create", "tiny", "--context-length", "8192")
    async with answering(http(500, b"no")) as upstream:
        added = await run("backends", "add", "tiny", upstream.url, "--verify")
    assert (added.exit_code, "answered 500" in added.output) == (1, True)
    assert "disabled" in (await run("backends", "list", "tiny")).output


async def test_health_is_shown_with_load_and_history(run_registry: RunningRegistry) -> None:
    replica = await Replica("--lora", "sql").start()
    try:
        async with run_registry(registry_prober=True, registry_scrape_interval_s=0.2) as registry:
            token = registry.headers["Authorization"].removeprefix("Bearer ")
            async with served(registry._transport.app) as url:  # type: ignore[attr-defined]
                environment = {"IAS_TOKEN": token, "IAS_REGISTRY_URL": url}

                async def invoke(*arguments: str) -> str:
                    group, *rest = arguments
                    command = {"models": models, "backends": backends}[group]
                    ran = await asyncio.to_thread(CliRunner().invoke, command, rest, env=environment)
                    assert ran.exit_code == 0, ran.output
                    return ran.output

                await invoke("models", "create", "tiny", "--context-length", "8192")
                added = await invoke("backends", "add", "tiny", replica.url, "--engine", "ias-sim")
                while "0 requests running" not in (shown := await invoke("backends", "health", added.strip())):
                    await asyncio.sleep(0.05)
                assert "adapters: sql" in shown
                assert "it answers and lists its model" in shown
                assert json.loads(await invoke("backends", "health", added.strip(), "--json"))["health"] == "ready"
    finally:
        replica.kill()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["models", "show", "absent"], 1, "there is no model 'absent'"),
        (["models", "update", "absent"], 2, "nothing to change was given"),
        (["backends", "health", "01a2083b-46cc-7e64-9252-39e7186cf380"], 1, "answered 404"),
        (["backends", "list"], 2, "Missing argument"),
    ],
)
async def test_what_cannot_be_done_is_told_in_a_line(run: Run, arguments: list[str], status: int, said: str) -> None:
    ran = await run(*arguments)
    assert (ran.exit_code, said in ran.output) == (status, True), ran.output


async def test_commands_need_a_token(run: Run) -> None:
    ran = await run("models", "list", token="")
    assert (ran.exit_code, "an access token is needed" in ran.output) == (1, True)

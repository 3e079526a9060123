"""A worker that is killed leaves behind how far its long streams had come: that is billed, once, and not the whole reservation."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ias.contracts.events import UsageRecord
from ias.gateway.publishing import SpoolPublisher
from ias.gateway.spool import Spool
from tests.gateway.conftest import StartGateway
from tests.gateway.platform import CollectingPublisher, Pushed, RunningGateway, budget, until
from tests.gateway.raw_client import RawClient, chat, connect, request_bytes
from tests.gateway.scripted_upstream import Received, ScriptedUpstream, Session, chunk, usage_chunk

LIMIT = 10**12
USAGE = {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}


@pytest.fixture
async def gateway(start_gateway: StartGateway, pushed: Pushed, upstream: ScriptedUpstream) -> RunningGateway:
    await pushed.everything(upstream.url)
    await pushed.budgets(budget(LIMIT))
    running = await start_gateway(gateway_stream_progress_s=0.05)
    await running.until_ready()
    return running


@asynccontextmanager
async def streaming(
    gateway: RunningGateway, upstream: ScriptedUpstream, *words: str, usage: dict[str, Any] | None = None
) -> AsyncIterator[tuple[RawClient, asyncio.Event]]:
    """A stream under way that has passed on some words; it goes on when the event is set."""
    release = asyncio.Event()

    async def script(_: Received, session: Session) -> None:
        await session.begin_stream()
        await session.event(chunk("", role="assistant"))
        for word in words:
            await session.event(chunk(word) | ({"usage": usage} if usage else {}))
        await release.wait()
        await session.event(chunk(finish="stop"))
        await session.event(usage_chunk())
        await session.end_stream()

    upstream.script = script
    async with connect(gateway.port) as client:
        await client.send(request_bytes(chat(stream=True), key=gateway.pushed.key))
        yield client, release
        release.set()


def progress_file(gateway: RunningGateway) -> Path:
    return gateway.worker.gateway.spool.directory.path / "progress"


def read_progress(gateway: RunningGateway) -> list[dict[str, Any]]:
    path = progress_file(gateway)
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


async def until_noted(gateway: RunningGateway, output_tokens: int) -> dict[str, Any]:
    await until(lambda: [one["output_tokens"] for one in read_progress(gateway)] == [output_tokens])
    return read_progress(gateway)[0]


def leave_behind(gateway: RunningGateway, root: Path) -> Path:
    """The worker's directory as it would lie there had the worker been killed just now."""
    return Path(shutil.copytree(gateway.worker.gateway.spool.directory.path, root / "1-1"))


async def recover(root: Path, bus: CollectingPublisher) -> list[UsageRecord]:
    """What another worker publishes of it; what it settles."""
    settled: list[UsageRecord] = []
    publisher = SpoolPublisher(Spool(root, bytes_max=10**9, fsync="never"), bus, interval_s=1, settle=settled.append)
    await publisher.publish_once()
    return settled


async def test_what_a_stream_had_passed_on_is_billed_when_its_worker_was_killed(
    gateway: RunningGateway, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    async with streaming(gateway, upstream, "one", "two", "three"):
        noted = await until_noted(gateway, 3)
        directory = leave_behind(gateway, tmp_path / "dead")
    bus = CollectingPublisher()
    [settled] = await recover(tmp_path / "dead", bus)
    [record] = bus.records
    assert (record["id"], record["output_tokens"], record["estimated"]) == (noted["id"], 3, True)
    assert record["cost_nano_usd"] == record["input_tokens"] * 1000 + 3 * 2000
    assert record["decision"]["why"].startswith("the gateway died")
    assert (settled.request_id, settled.cost_nano_usd) == (record["request_id"], record["cost_nano_usd"])
    assert not directory.exists()


async def test_the_engines_own_count_is_what_is_noted_where_it_tells(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    async with streaming(gateway, upstream, "one two three", usage=USAGE):
        noted = await until_noted(gateway, 3)
    assert (noted["input_tokens"], noted["estimated"]) == (10, True)


async def test_a_record_is_published_only_when_the_line_of_its_stream_is_gone(
    gateway: RunningGateway, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.publisher.is_away = True
    publish, left = gateway.publisher.publish, []

    async def watch(topic: str, body: bytes, *, message_id: str) -> None:
        left.append(read_progress(gateway))
        await publish(topic, body, message_id=message_id)

    monkeypatch.setattr(gateway.publisher, "publish", watch)
    async with streaming(gateway, upstream, "one") as (client, release):
        await until_noted(gateway, 1)
        release.set()
        assert (await client.read_answer()).text == "one"
    await until(lambda: bool(left))
    gateway.publisher.is_away = False
    [record] = await gateway.records(1)
    assert (record["output_tokens"], record["estimated"]) == (5, False)
    assert left
    assert not any(left)
    assert not progress_file(gateway).exists()


async def test_where_the_record_was_written_its_line_counts_for_nothing(
    gateway: RunningGateway, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    async with streaming(gateway, upstream, "one") as (client, release):
        noted = await until_noted(gateway, 1)
        line = progress_file(gateway).read_bytes()
        release.set()
        await client.read_answer()
    await gateway.records(1)
    directory = tmp_path / "dead" / "1-1"
    directory.mkdir(parents=True)
    (directory / "progress").write_bytes(line)
    (directory / "1.jsonl").write_bytes(
        json.dumps(gateway.publisher.records[0], separators=(",", ":")).encode() + b"\n"
    )
    bus = CollectingPublisher()
    assert await recover(tmp_path / "dead", bus) == []
    assert [(one["id"], one["output_tokens"]) for one in bus.records] == [(noted["id"], 5)]


async def test_a_stream_that_ends_within_the_interval_writes_nothing(
    start_gateway: StartGateway, pushed: Pushed, upstream: ScriptedUpstream
) -> None:
    await pushed.everything(upstream.url)
    gateway = await start_gateway(gateway_stream_progress_s=60.0)
    await gateway.until_ready()
    async with streaming(gateway, upstream, "one") as (client, release):
        await client.read_head()
        await asyncio.sleep(0.3)
        assert not progress_file(gateway).exists()
        release.set()
    await gateway.records(1)


async def test_the_bus_being_away_leaves_what_was_noted_for_later(
    gateway: RunningGateway, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    async with streaming(gateway, upstream, "one", "two"):
        await until_noted(gateway, 2)
        directory = leave_behind(gateway, tmp_path / "dead")
    bus = CollectingPublisher()
    bus.is_away = True
    with pytest.raises(ConnectionError):
        await recover(tmp_path / "dead", bus)
    assert (directory / "progress").exists()
    bus.is_away = False
    assert len(await recover(tmp_path / "dead", bus)) == 1
    assert [one["output_tokens"] for one in bus.records] == [2]


@pytest.mark.parametrize("rubbish", [b"", b"\x00\xff", b'{"id":"1"}\n', b"[]\n"])
async def test_a_file_that_cannot_be_read_does_not_keep_records_from_being_published(
    tmp_path: Path, rubbish: bytes
) -> None:
    directory = tmp_path / "1-1"
    directory.mkdir()
    (directory / "progress").write_bytes(rubbish)
    (directory / "1.jsonl").write_bytes(b'{"id":"1"}\n')
    bus = CollectingPublisher()
    assert await recover(tmp_path, bus) == []
    assert bus.records == [{"id": "1"}]
    assert not directory.exists()

"""A usage record that was spooled is published, whatever dies in between."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ias.gateway import pipeline
from ias.gateway.context import Gateway
from ias.gateway.exchange import Exchange, Progress
from ias.gateway.publishing import SpoolPublisher
from ias.gateway.record import record
from ias.gateway.redis_connection import pack
from ias.gateway.script_calls import SETTLE
from ias.gateway.settle import settle
from ias.gateway.spool import Fsync, Spool, measure_bytes, read_batches
from tests.gateway.conftest import StartGateway
from tests.gateway.platform import CollectingPublisher, Pushed, RunningGateway, budget, until
from tests.gateway.raw_client import ask, chat
from tests.gateway.scripted_upstream import ScriptedUpstream

WRITER = """
import asyncio, sys, time
import msgspec
from pathlib import Path
from ias.contracts.events import UsageRecord
from ias.gateway.spool import Spool

def record(number):
    return UsageRecord(id=str(number), request_id="r", occurred_at="t", org_id="o", project_id="p", api_key_id="k", user_id=None,
        service_account_id=None, endpoint="e", model="m", backend_id="b", streamed=False, status=200, outcome="completed",
        input_tokens=1, cached_input_tokens=0, output_tokens=1, estimated=False, price_id=None, price_version=None,
        cost_nano_usd=1, ttft_ms=None, duration_ms=1.0, decision={})

async def main():
    spool = Spool(Path(sys.argv[1]), bytes_max=10**9, fsync="segment")
    for number in range(1200):
        spool.append(msgspec.json.encode(record(number)) + b"\\n")
        if number % 100 == 0:
            await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    print(spool.directory.path, flush=True)
    time.sleep(60)

asyncio.run(main())
"""


def make_spool(root: Path, bytes_max: int = 10**9) -> Spool:
    return Spool(root, bytes_max=bytes_max, fsync="always")


async def test_records_of_a_killed_worker_are_published_by_another(tmp_path: Path) -> None:
    with subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        directory = Path((await asyncio.to_thread(writer.stdout.readline)).strip())
        bus = CollectingPublisher()
        publisher = SpoolPublisher(make_spool(tmp_path), bus, interval_s=1)
        await publisher.publish_once()
        assert bus.records == []  # its writer lives
        os.kill(writer.pid, signal.SIGKILL)
    segment = next(directory.glob("*.jsonl"))  # noqa: ASYNC240
    with segment.open("ab") as file:
        file.write(b'{"id":"torn","request_id"')
    publisher._adopt_after = 0.0
    await publisher.publish_once()
    assert [record["id"] for record in bus.records] == [str(number) for number in range(1200)]
    assert publisher._spool.corrupt_lines == 1
    assert not directory.exists()  # noqa: ASYNC240
    assert measure_bytes(tmp_path) == 0


@pytest.mark.parametrize("earlier", [0, 1])
async def test_a_record_is_with_the_kernel_before_its_settlement_leaves_for_redis(
    gateway: RunningGateway, pushed: Pushed, earlier: int
) -> None:
    """Whoever dies between the two has spent nothing that will not be booked."""
    await pushed.budgets(budget(10**12))
    connection = gateway.worker.gateway.redis
    protocol = connection._protocol
    assert protocol is not None
    transport = protocol.transport
    assert transport is not None
    write, settled_before_spooled = transport.write, []

    def watch(data: bytes) -> None:
        if SETTLE.sha.encode() in data:
            spooled = b"".join(path.read_bytes() for path in gateway.worker.gateway.spool.root.glob("*/*.jsonl"))
            settled_before_spooled.append(re.search(rb"req_[0-9a-f]{32}", data)[0] not in spooled)  # type: ignore[index]
        write(data)

    transport.write = watch  # type: ignore[method-assign]
    gateway.publisher.is_away = True

    def finish_after_another_command(exchange: Exchange, parts: Gateway) -> Progress:
        for _ in range(earlier):
            parts.redis.call(pack("PING"), lambda *_: None)
        return settle(exchange, parts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "CLOSING", (finish_after_another_command, record))
        assert (await ask(gateway.port, chat(), key=pushed.key)).status == 200
        await gateway.until_quiet()
    assert settled_before_spooled == [False]
    gateway.publisher.is_away = False


@pytest.mark.parametrize(("fsync", "forced"), [("never", 0), ("segment", 1), ("always", 2)])
async def test_records_are_forced_to_disk_as_often_as_the_setting_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fsync: Fsync, forced: int
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(os, "fdatasync", calls.append)
    spool = Spool(tmp_path, bytes_max=10**9, fsync=fsync)
    for _ in range(2):
        spool.append(b'{"id":"1"}\n')
        spool.flush()
    await spool.close_segment()
    assert len(calls) == forced


@pytest.mark.parametrize("rubbish", [b"\x00\xff\n", b"[]\n", b'{"id"\n', b"}\n", b"\n", b'{"id":"1"}'])
def test_lines_that_cannot_be_read_are_counted_and_passed_over(tmp_path: Path, rubbish: bytes) -> None:
    segment = tmp_path / "1.jsonl"
    segment.write_bytes(b'{"id":"1"}\n' + rubbish)
    assert list(read_batches(segment)) == [([b'{"id":"1"}'], 1)]


async def test_while_the_bus_is_away_records_wait_and_then_arrive_once(gateway: RunningGateway) -> None:
    gateway.publisher.is_away = True
    for _ in range(5):
        assert (await ask(gateway.port, chat(), key=gateway.pushed.key)).status == 200
    await until(lambda: gateway.worker.publisher.failures >= 1)
    assert gateway.worker.gateway.spool.bytes > 0
    gateway.publisher.is_away = False
    records = await gateway.records(5)
    await until(lambda: gateway.worker.gateway.spool.bytes == 0)
    assert len({record["id"] for record in records}) == len(records) == 5


async def test_a_full_spool_refuses_what_could_not_be_billed(
    start_gateway: StartGateway, pushed: Pushed, upstream: ScriptedUpstream
) -> None:
    await pushed.everything(upstream.url)
    gateway = await start_gateway(gateway_spool_bytes_max=100)
    await gateway.until_ready()
    gateway.publisher.is_away = True
    assert (await ask(gateway.port, chat(), key=pushed.key)).status == 200
    answer = await ask(gateway.port, chat(), key=pushed.key)
    assert (answer.status, answer.error["code"]) == (503, "usage_spool_full")
    assert (await ask(gateway.port, method="GET", path="/ready")).document["checks"]["spool"] == "away"
    gateway.publisher.is_away = False
    await until(lambda: not gateway.worker.gateway.spool.is_full)
    assert (await ask(gateway.port, chat(), key=pushed.key)).status == 200


async def test_a_disk_that_refuses_stops_admission_until_it_takes_what_waited(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = gateway.worker.gateway.spool

    write = os.write

    def refuse(fd: int, data: bytes) -> int:
        if fd == spool._fd:
            raise OSError(28, "No space left on device")
        return write(fd, data)

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", refuse)
        assert (await ask(gateway.port, chat(), key=gateway.pushed.key)).status == 200
        await until(lambda: spool.is_full)
        answer = await ask(gateway.port, chat(), key=gateway.pushed.key)
        assert answer.error["code"] == "usage_spool_full"
    assert len(await gateway.records(1)) == 1
    assert (await ask(gateway.port, chat(), key=gateway.pushed.key)).status == 200


async def test_the_record_says_who_what_and_why(gateway: RunningGateway) -> None:
    await ask(gateway.port, chat(), key=gateway.pushed.key)
    (record,) = await gateway.records(1)
    assert record["request_id"] == "req_" + record["id"].replace("-", "")
    assert (record["org_id"], record["project_id"], record["api_key_id"], record["user_id"]) == (
        "org-1",
        "project-1",
        "key-1",
        "user-1",
    )
    assert (record["endpoint"], record["model"], record["backend_id"]) == ("/v1/chat/completions", "m", "backend-0")
    assert (record["price_id"], record["price_version"], record["status"]) == ("price-m", 1, 200)
    assert record["decision"]["backend"] == "backend-0"
    assert 0 < record["ttft_ms"] <= record["duration_ms"]
    assert gateway.pushed.key not in json.dumps(record)

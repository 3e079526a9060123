"""`ias dead-letters`, on a real bus."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis

from ias.contracts.events import USAGE_TOPIC
from ias.kit.bus.redis_streams import dead_letter_stream_name, stream_name

REASON = "record 7: no such org"


def dead_letters(bus_url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ias", "dead-letters", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "IAS_BUS_URL": bus_url},
    )


@pytest.fixture
def redis(redis_url: str) -> Redis:
    """A Redis in which billing has set two messages aside."""
    client = Redis.from_url(redis_url)
    for number in range(2):
        body = json.dumps({"schema": "usage_recorded/1", "records": [number]}, indent=1)
        client.xadd(
            dead_letter_stream_name(USAGE_TOPIC, "billing"), {"id": f"m{number}", "body": body, "reason": REASON}
        )
    return client


def test_they_are_listed_with_their_reasons(redis: Redis, redis_url: str):
    ran = dead_letters(redis_url, "list", "--group", "billing", "--limit", "1")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("m0 ")
    assert ran.stdout.endswith(f"bytes  {REASON}\n")
    assert ran.stderr == "2 set aside by billing of usage_recorded, 1 shown\n"


def test_they_are_replayed(redis: Redis, redis_url: str):
    assert dead_letters(redis_url, "replay", "--group", "billing").stdout == "2 replayed\n"
    assert [fields[b"id"] for _, fields in redis.xrange(stream_name(USAGE_TOPIC))] == [b"m0", b"m1"]
    assert dead_letters(redis_url, "replay", "--group", "billing").stdout == "0 replayed\n"


def test_they_are_removed_into_a_file_one_a_line(redis: Redis, redis_url: str, tmp_path: Path):
    file = tmp_path / "kept.ndjson"
    assert dead_letters(redis_url, "remove", "--group", "billing", "--to", str(file)).stdout == "2 removed\n"
    assert [json.loads(line)["records"] for line in file.read_text().splitlines()] == [[0], [1]]
    assert redis.xlen(dead_letter_stream_name(USAGE_TOPIC, "billing")) == 0


def test_a_disk_that_is_full_loses_nothing(redis: Redis, redis_url: str):
    ran = dead_letters(redis_url, "remove", "--group", "billing", "--to", "/dev/full")
    assert ran.returncode == 1
    assert "/dev/full cannot be written (No space left on device); what is not in it stays" in ran.stderr
    assert redis.xlen(dead_letter_stream_name(USAGE_TOPIC, "billing")) == 2


@pytest.mark.parametrize("bus_url", ["redis://127.0.0.1:1/0", "amqp://guest:hunter2@127.0.0.1:1/"])
def test_a_bus_that_is_away_is_one_line(bus_url: str):
    ran = dead_letters(bus_url, "list", "--group", "billing")
    assert ran.returncode == 1
    assert "the bus does not answer" in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert "hunter2" not in ran.stderr


def test_a_group_that_nobody_knows_is_refused_by_name():
    ran = dead_letters("redis://127.0.0.1:1/0", "list", "--group", "biling")
    assert ran.returncode == 1
    assert (
        "biling is no consumer of usage_recorded; there are, of usage_recorded: billing, analytics, identity"
        in ran.stderr
    )

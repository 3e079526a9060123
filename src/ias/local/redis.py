"""The embedded Redis: caches, counters and the event bus of a one-machine platform, on loopback, with a password.

Every write is appended to a file before it is answered, and nothing is ever evicted: counters and unread usage records are
in here.
"""

import asyncio
import os
from dataclasses import dataclass

from redis.asyncio import Redis as RedisClient
from redis.exceptions import RedisError

from ias.local.data_directory import DataDirectory, explain_os_errors
from ias.local.errors import PlatformError
from ias.local.ports import LOOPBACK
from ias.local.privileges import bind_to_parent
from ias.local.process import ProcessSpec
from ias.local.servers import Server, Version, find_redis


@dataclass(frozen=True)
class Redis:
    """A Redis server on this data directory."""

    server: Server
    port: int
    password: str

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"


async def prepare_redis(data: DataDirectory, *, password: str, port: int) -> Redis:
    """Find the server and write its configuration.

    Raises:
        PlatformError: there is no server, or the data was written by a newer one.
    """
    server = await asyncio.to_thread(find_redis)
    _require_not_older(server, data)
    configuration = "\n".join(
        [
            f"bind {LOOPBACK}",
            f"port {port}",
            f"requirepass {password}",
            f'dir "{data.redis}"',
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            "maxmemory-policy noeviction",
            "daemonize no",
            "supervised no",
            'logfile ""',
            "",
        ]
    )
    with explain_os_errors(data.redis):
        path = data.redis / "redis.conf"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(configuration)
        (data.redis / "version").write_text(server.version_text)
    return Redis(server=server, port=port, password=password)


def redis_spec(redis: Redis, data: DataDirectory) -> ProcessSpec:
    """How to run the server."""

    async def probe() -> bool:
        return await _answers(redis)

    return ProcessSpec(
        name="redis",
        arguments=bind_to_parent([str(redis.server.program), str(data.redis / "redis.conf")], "SIGTERM"),
        environment={"PATH": os.environ.get("PATH", os.defpath), "TZ": "UTC"},
        log_file=data.log_file("redis"),
        probe=probe,
    )


async def _answers(redis: Redis) -> bool:
    client = RedisClient.from_url(redis.url, socket_connect_timeout=1, socket_timeout=1)
    try:
        return bool(await client.ping())
    except (RedisError, OSError):
        return False
    finally:
        await client.aclose()


def _require_not_older(server: Server, data: DataDirectory) -> None:
    """An older major version does not read a newer one's files and would start empty without a word."""
    try:
        written_by: Version = tuple(int(part) for part in (data.redis / "version").read_text().split("."))
    except (FileNotFoundError, ValueError):
        return
    if server.version[0] < written_by[0]:
        raise PlatformError(
            f"the data is of Redis {written_by[0]}, and only {server.version_text} is installed",
            f"install Redis {written_by[0]} or newer again, or start on another --data-dir (docs/runbooks/local.md)",
        )

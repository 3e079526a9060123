"""Redis connections that a cancelled task lets go of.

redis-py sends under `asyncio.wait_for`, which in Python 3.11 forgets a cancellation that arrives in the moment the send is done.
A loop that is being stopped would then go on for ever, and whoever waits for its end with it.
"""

import asyncio
from typing import Any

from redis.asyncio import Connection, Redis, SSLConnection
from redis.asyncio.connection import AbstractConnection


class _CancellableSend(Connection):
    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        task = asyncio.current_task()
        requests_before = task.cancelling() if task else 0
        await super().send_packed_command(command, check_health)
        if task and task.cancelling() > requests_before:
            await self.disconnect(nowait=True)  # its answer will not be read, so nobody else may read it either
            raise asyncio.CancelledError


class _CancellableTlsSend(_CancellableSend, SSLConnection):
    pass


def redis_from_url(url: str, **options: Any) -> "Redis":
    """As `Redis.from_url`, for `redis://` and `rediss://`; a Unix socket's connection stays redis-py's own."""
    client = Redis.from_url(url, **options)
    pool = client.connection_pool
    cancellable: dict[type, type[AbstractConnection]] = {
        Connection: _CancellableSend,
        SSLConnection: _CancellableTlsSend,
    }
    pool.connection_class = cancellable.get(pool.connection_class, pool.connection_class)
    return client

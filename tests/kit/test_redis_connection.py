"""A task that talks to Redis ends when it is cancelled, at whatever moment."""

import asyncio
import random

from ias.kit.redis_documents import open_redis


async def test_a_cancelled_task_ends_whatever_redis_operation_it_is_in(redis_url: str) -> None:
    client = open_redis(redis_url, 1.0)

    async def ask_for_ever() -> None:
        while True:
            await client.get("k")

    for _ in range(300):
        task = asyncio.create_task(ask_for_ever())
        await asyncio.sleep(random.random() * 0.003)  # noqa: S311  # any moment
        task.cancel()
        _, pending = await asyncio.wait({task}, timeout=1)
        assert not pending
    await client.aclose()

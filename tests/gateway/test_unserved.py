"""Requests that were not served are remembered: whose they were, why, and what remained; in bounds."""

import asyncio
from collections.abc import Sequence

import msgspec

from ias.contracts import redis_keys
from ias.contracts.unserved import REMEMBERED_MAX, UnservedRequest
from tests.gateway.platform import ORG, PROJECT, RunningGateway, budget, limit
from tests.gateway.raw_client import ask, chat
from tests.gateway.scripted_upstream import Received, ScriptedUpstream, Session


async def remembered(gateway: RunningGateway, count: int) -> Sequence[UnservedRequest]:
    """The newest first, once there are so many."""
    async with asyncio.timeout(10):
        while True:
            texts = await gateway.pushed.redis.lrange(redis_keys.unserved(ORG), 0, -1)
            if len(texts) >= count:
                return [msgspec.json.decode(text, type=UnservedRequest) for text in texts]
            await asyncio.sleep(0.05)


async def test_why_a_request_was_not_served_is_remembered(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    async def break_down(received: Received, session: Session) -> None:
        await session.send_json({"error": {"message": "broken"}}, status=500)

    key = gateway.pushed.key
    unknown = await ask(gateway.port, chat(model="none\n" + "x" * 1000), key=key)
    await gateway.pushed.budgets(budget(10))
    over_budget = await ask(gateway.port, chat(), key=key)
    await gateway.pushed.ceilings(limits=[limit("requests_per_day", 2)])
    served = await ask(gateway.port, chat(), key=key)
    upstream.script = break_down
    failed = await ask(gateway.port, chat(), key=key)
    over_limit = await ask(gateway.port, chat(), key=key)
    answers = [over_limit, failed, over_budget, unknown]
    assert [answer.status for answer in (served, *answers)] == [200, 429, 500, 429, 404]
    found = await remembered(gateway, 4)
    assert [one.request_id for one in found] == [answer.headers["x-request-id"] for answer in answers]
    assert [one.status for one in found] == [429, 500, 429, 404]
    assert {(one.project_id, one.endpoint) for one in found} == {(PROJECT, "/v1/chat/completions")}
    limited, broken, refused, unfound = found
    assert (limited.code, limited.denied_by) == ("rate_limit_exceeded", "rate_limit:requests_per_day")
    assert broken.attempts
    assert (refused.code, refused.denied_by, refused.budgets) == ("insufficient_quota", "budget:b1", ("b1",))
    assert refused.remaining_nano_usd == 10 < refused.reserved_nano_usd
    assert unfound.model.startswith("none\nx")
    assert len(unfound.model) < 300


async def test_only_the_newest_are_remembered_for_a_day_and_nothing_of_strangers(gateway: RunningGateway) -> None:
    await ask(gateway.port, chat(), key="ias-sk-nobody")
    await ask(gateway.port, method="GET", path="/v1/models/none", key=gateway.pushed.key)
    unserved = gateway.worker.gateway.unserved
    for _ in range(2):
        answer = await ask(gateway.port, chat(model="none"), key=gateway.pushed.key)
        waiting = unserved._by_org.get(ORG)
        if waiting:
            waiting.extend(waiting[-1] for _ in range(3 * REMEMBERED_MAX))
            assert len(waiting) == REMEMBERED_MAX
        unserved.send()
    async with asyncio.timeout(10):
        while (found := await remembered(gateway, 1))[0].request_id != answer.headers["x-request-id"]:
            await asyncio.sleep(0.05)
    assert len(found) <= REMEMBERED_MAX
    assert {one.endpoint for one in found} == {"/v1/chat/completions"}
    assert 0 < await gateway.pushed.redis.ttl(redis_keys.unserved(ORG)) <= 86_400

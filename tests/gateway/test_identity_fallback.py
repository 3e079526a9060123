"""A key that Redis does not know is asked for at identity, once however many ask, and not again at once when unknown."""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from ias.contracts.api_keys import digest_key, generate_key
from tests.gateway.conftest import StartGateway
from tests.gateway.platform import KEY_ID, ORG, PROJECT, Pushed, RunningGateway
from tests.gateway.raw_client import ask, chat
from tests.gateway.scripted_upstream import Received, ScriptedUpstream, Session, run_upstream

TENANT = {"version": 1, "status": "active", "models": None}


@dataclass
class Identity:
    """Identity's two internal routes."""

    known: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    is_broken: bool = False

    async def serve(self, received: Received, session: Session) -> None:
        if self.is_broken:
            await session.send_json({}, 500)
        elif received.path == "/internal/service-tokens":
            assert received.document["client_id"] == "gateway"
            assert received.document["client_secret"] == "secret"
            await session.send_json({"access_token": "t", "expires_at_unix": int(time.time()) + 600})
        else:
            assert received.headers["authorization"] == "Bearer t"
            digest = received.document["digest"]
            self.asked.append(digest)
            await asyncio.sleep(0.05)
            record = self.known.get(digest)
            await session.send_json(
                {
                    "key": record,
                    "org": {**TENANT, "id": ORG} if record else None,
                    "project": {**TENANT, "id": PROJECT} if record else None,
                }
            )


@pytest.fixture
async def identity() -> AsyncIterator[tuple[Identity, ScriptedUpstream]]:
    answers = Identity()
    async with run_upstream(answers.serve) as server:
        yield answers, server


@pytest.fixture
async def asking(
    start_gateway: StartGateway,
    pushed: Pushed,
    upstream: ScriptedUpstream,
    identity: tuple[Identity, ScriptedUpstream],
) -> RunningGateway:
    await pushed.everything(upstream.url)
    running = await start_gateway(
        identity_url=identity[1].url.removesuffix("/v1"), service_secret="secret", gateway_unknown_key_ttl_s=30.0
    )
    await running.until_ready()
    return running


def record() -> dict[str, Any]:
    return {"version": 1, "key_id": KEY_ID, "org_id": ORG, "project_id": PROJECT, "status": "active"}


async def test_many_at_once_ask_once(asking: RunningGateway, identity: tuple[Identity, ScriptedUpstream]) -> None:
    key = generate_key()
    identity[0].known[digest_key(key)] = record()
    answers = await asyncio.gather(*(ask(asking.port, chat(), key=key) for _ in range(20)))
    assert {answer.status for answer in answers} == {200}
    assert identity[0].asked == [hashlib.sha256(key.encode()).hexdigest()]


async def test_an_unknown_key_is_remembered_until_it_is_pushed(
    asking: RunningGateway, identity: tuple[Identity, ScriptedUpstream]
) -> None:
    key = generate_key()
    for _ in range(3):
        assert (await ask(asking.port, chat(), key=key)).status == 401
    assert len(identity[0].asked) == 1
    await asking.pushed.api_key(key)
    for _ in range(100):
        if (await ask(asking.port, chat(), key=key)).status == 200:
            break
    assert (await ask(asking.port, chat(), key=key)).status == 200
    assert len(identity[0].asked) == 1


async def test_while_identity_is_away_known_keys_are_served_and_others_503(
    asking: RunningGateway, identity: tuple[Identity, ScriptedUpstream]
) -> None:
    identity[0].is_broken = True
    assert (await ask(asking.port, chat(), key=asking.pushed.key)).status == 200
    answer = await ask(asking.port, chat(), key=generate_key())
    assert (answer.status, answer.error["code"]) == (503, "identity_unavailable")
    assert json.loads(answer.body)

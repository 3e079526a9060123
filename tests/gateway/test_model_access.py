"""Which models a caller gets by which name, and what is said of those that are on their way out."""

import time
from typing import Any

import pytest

from tests.gateway.platform import ORG, RunningGateway, backends, until
from tests.gateway.raw_client import ask, chat
from tests.gateway.scripted_upstream import ScriptedUpstream

NEVER = 4_000_000_000


async def push(gateway: RunningGateway, upstream: ScriptedUpstream, **fields: Any) -> None:
    """Model `m`, which is also called `fast`, with the given fields; returns when the gateway knows."""
    route = {"name": "m", "aliases": ("fast",), "backends": backends(upstream.url), **fields}
    await gateway.pushed.routes({"m": route, "fast": route})
    snapshots = gateway.worker.gateway.snapshots
    await until(lambda: snapshots.routes is not None and snapshots.routes.version == gateway.pushed.versions)


async def list_names(gateway: RunningGateway) -> list[str]:
    answer = await ask(gateway.port, method="GET", path="/v1/models", key=gateway.pushed.key)
    return [model["id"] for model in answer.document["data"]]


async def test_an_alias_is_served_counted_and_billed_as_the_model(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    await push(gateway, upstream)
    answer = await ask(gateway.port, chat(model="fast"), key=gateway.pushed.key)
    assert answer.status == 200, answer.body
    assert upstream.received[-1].document["model"] == "m", "the backend knows no alias"
    assert answer.document["model"] == "fast", "the client sees the name that it used"
    assert (await gateway.records(1))[0]["model"] == "m"
    assert await list_names(gateway) == ["m"]
    shown = (await ask(gateway.port, method="GET", path="/v1/models/fast", key=gateway.pushed.key)).document
    assert (shown["id"], shown["aliases"]) == ("m", ["fast"])


async def test_a_stream_shows_the_name_that_the_client_used(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    await push(gateway, upstream)
    answer = await ask(gateway.port, chat(model="fast", stream=True), key=gateway.pushed.key)
    assert {chunk["model"] for chunk in answer.chunks} == {"fast"}


@pytest.mark.parametrize(("fields", "status"), [({"org_ids": ("org-2",)}, 404), ({"org_ids": (ORG, "org-2")}, 200)])
async def test_a_model_for_other_orgs_might_as_well_not_exist(
    gateway: RunningGateway, upstream: ScriptedUpstream, fields: dict[str, Any], status: int
) -> None:
    await push(gateway, upstream, **fields)
    for name in ("m", "fast"):
        assert (await ask(gateway.port, chat(model=name), key=gateway.pushed.key)).status == status
        one = await ask(gateway.port, method="GET", path=f"/v1/models/{name}", key=gateway.pushed.key)
        assert one.status == status
    assert await list_names(gateway) == (["m"] if status == 200 else [])


@pytest.mark.parametrize(("models", "status"), [(("m",), 200), (("fast",), 200), (("other",), 403)])
async def test_a_key_that_may_not_use_what_its_org_may_is_forbidden(
    gateway: RunningGateway, upstream: ScriptedUpstream, models: tuple[str, ...], status: int
) -> None:
    await push(gateway, upstream)
    await gateway.pushed.api_key(models=models)
    answer = await ask(gateway.port, chat(model="fast"), key=gateway.pushed.key)
    assert answer.status == status
    if status == 403:
        assert answer.error["code"] == "model_not_found"
    assert await list_names(gateway) == (["m"] if status == 200 else [])


async def test_a_model_outside_the_orgs_own_list_is_404(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    await push(gateway, upstream)
    await gateway.pushed.tenants(models=("other",))
    answer = await ask(gateway.port, chat(), key=gateway.pushed.key)
    assert (answer.status, answer.error["code"]) == (404, "model_not_found")


async def test_a_deprecated_model_says_so_with_every_answer(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    await push(gateway, upstream, deprecated_at=1_600_000_000, sunset_at=NEVER, replacement="org/new")
    answer = await ask(gateway.port, chat(), key=gateway.pushed.key)
    one = await ask(gateway.port, method="GET", path="/v1/models/m", key=gateway.pushed.key)
    for told in (answer.headers, one.headers):
        assert told["deprecation"] == "@1600000000"
        assert told["sunset"] == "Tue, 02 Oct 2096 07:06:40 GMT"
        assert told["link"] == '</v1/models/org%2Fnew>; rel="successor-version"'
    assert (one.document["deprecated_at"], one.document["replacement"]) == (1_600_000_000, "org/new")
    await push(gateway, upstream)
    assert "deprecation" not in (await ask(gateway.port, chat(), key=gateway.pushed.key)).headers


async def test_after_its_sunset_a_model_is_gone_and_its_successor_named(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    await push(gateway, upstream, deprecated_at=1, sunset_at=int(time.time()) - 1, replacement="new")
    answer = await ask(gateway.port, chat(), key=gateway.pushed.key)
    assert (answer.status, answer.error["code"]) == (404, "model_not_found")
    assert "retired" in answer.error["message"]
    assert "`new`" in answer.error["message"]
    assert await list_names(gateway) == []


@pytest.mark.parametrize(("capabilities", "status"), [(("embeddings",), 404), (("chat", "tools"), 200), ((), 200)])
async def test_a_model_is_asked_for_what_it_is_for(
    gateway: RunningGateway, upstream: ScriptedUpstream, capabilities: tuple[str, ...], status: int
) -> None:
    await push(gateway, upstream, capabilities=capabilities)
    answer = await ask(gateway.port, chat(), key=gateway.pushed.key)
    assert answer.status == status
    if status == 404:
        assert (answer.error["code"], answer.error["param"]) == ("model_not_supported", "model")
        assert upstream.received == []

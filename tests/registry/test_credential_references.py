"""Credentials that are kept elsewhere: in the registry's environment, or in a mounted directory."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from redis.asyncio import Redis

from ias.contracts import redis_keys
from ias.contracts.routes import CREDENTIAL_PURPOSE, RouteTable
from ias.kit.sealing import Sealer, decode_secret_key
from ias.registry.core.credentials import Credentials
from tests.registry.conftest import SECRET_KEY, RunningRegistry, create_backend, create_model
from tests.registry.upstream import COMPLETION, answering, http


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def registry(
    run_registry: RunningRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    monkeypatch.setenv("IAS_BACKEND_CREDENTIAL_ONE", "sk-from-environment")
    monkeypatch.setenv("IAS_OTHER_SECRET", "not for backends")
    (tmp_path / "two").write_text("sk-from-file\n")
    (tmp_path / "empty").write_text("")
    async with run_registry(registry_credentials_dir=str(tmp_path)) as client:
        yield client


async def sent_credentials(redis: Redis) -> list[str | None]:
    """What gateways would send to each backend of `tiny`."""
    table = msgspec.json.decode(await redis.get(redis_keys.ROUTES), type=RouteTable)
    sealer = Sealer(decode_secret_key(SECRET_KEY), CREDENTIAL_PURPOSE)
    sealed = [backend.sealed_credential for backend in table.models["tiny"].backends]
    return [sealer.open(one) if one else None for one in sealed]


async def test_gateways_are_sent_what_a_reference_refers_to(registry: httpx.AsyncClient, redis: Redis) -> None:
    model = await create_model(registry)
    for reference in ("env:IAS_BACKEND_CREDENTIAL_ONE", "file:two"):
        made = await create_backend(registry, model["id"], credential_from=reference)
        assert (made["has_credential"], made["credential_from"]) == (True, reference)
    assert await sent_credentials(redis) == ["sk-from-environment", "sk-from-file"]
    assert b"sk-from" not in await redis.get(redis_keys.ROUTES)


async def test_a_secret_that_is_another_reaches_gateways_and_one_that_is_gone_stays(
    registry: httpx.AsyncClient, redis: Redis, tmp_path: Path
) -> None:
    model = await create_model(registry)
    await create_backend(registry, model["id"], credential_from="file:two")
    (tmp_path / "two").write_text("sk-rotated")
    while await sent_credentials(redis) != ["sk-rotated"]:
        await asyncio.sleep(0.02)
    (tmp_path / "two").unlink()
    await create_backend(registry, model["id"], url="http://10.0.0.9:1/v1")
    assert await sent_credentials(redis) == ["sk-rotated", None]


async def test_a_push_that_began_before_a_backend_was_made_does_not_forget_its_secret(
    run_registry: RunningRegistry, redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "two").write_text("sk-from-file")
    made = threading.Event()
    waiting = iter([made])
    seal_referred = Credentials.seal_referred

    def seal_late(self: Credentials, references: Iterable[str]) -> dict[str, str]:
        if held_back := next(waiting, None):
            held_back.wait(timeout=1)
        return seal_referred(self, references)

    monkeypatch.setattr(Credentials, "seal_referred", seal_late)
    async with run_registry(registry_credentials_dir=str(tmp_path)) as registry:
        model = await create_model(registry)
        await create_backend(registry, model["id"], credential_from="file:two")
        made.set()
        await asyncio.sleep(0.1)
        (tmp_path / "two").write_text("sk-rotated")
        async with asyncio.timeout(20):
            while await sent_credentials(redis) != ["sk-rotated"]:
                await asyncio.sleep(0.02)


async def test_a_backend_whose_secret_is_not_there_yet_is_left_out_until_it_is(
    run_registry: RunningRegistry, registry: httpx.AsyncClient, redis: Redis, tmp_path: Path
) -> None:
    model = await create_model(registry)
    await create_backend(registry, model["id"], credential_from="file:two")
    (tmp_path / "two").unlink()
    async with run_registry(registry_credentials_dir=str(tmp_path)) as another:
        await create_backend(another, model["id"])
        assert await sent_credentials(redis) == [None]
        (tmp_path / "two").write_text("sk-there-again")
        while await sent_credentials(redis) != ["sk-there-again", None]:
            await asyncio.sleep(0.02)


REFUSED: dict[str, str] = {
    "env:IAS_BACKEND_CREDENTIAL_NONE": "has no variable IAS_BACKEND_CREDENTIAL_NONE",
    "file:absent": "The credential file absent cannot be read: No such file or directory.",
    "file:empty": "holds no key",
    "env:IAS_OTHER_SECRET": "pattern",
    "env:IAS_SECRET_KEY": "pattern",
    "file:../secret": "pattern",
    "file:/etc/passwd": "pattern",
    "file:.hidden": "pattern",
    "vault:key": "pattern",
}


async def test_a_reference_that_cannot_be_followed_is_refused_with_the_reason(registry: httpx.AsyncClient) -> None:
    model = await create_model(registry)
    backend = await create_backend(registry, model["id"])
    for reference, reason in REFUSED.items():
        answer = await registry.patch(f"/registry/v1/backends/{backend['id']}", json={"credential_from": reference})
        assert answer.status_code == 422, reference
        (error,) = answer.json()["errors"]
        assert error["pointer"] == "/credential_from"
        assert reason in error["detail"], error


async def test_without_a_directory_no_file_is_read(run_registry: RunningRegistry) -> None:
    async with run_registry() as registry:
        model = await create_model(registry)
        body = {"url": "http://10.0.0.1", "credential_from": "file:two"}
        answer = await registry.post(f"/registry/v1/models/{model['id']}/backends", json=body)
    assert "IAS_REGISTRY_CREDENTIALS_DIR" in answer.text


async def test_a_backend_has_one_credential(registry: httpx.AsyncClient, redis: Redis) -> None:
    model = await create_model(registry)
    path = f"/registry/v1/backends/{(await create_backend(registry, model['id'], credential='sk-own'))['id']}"
    both = {"credential": "sk-x", "credential_from": "file:two"}
    assert (await registry.patch(path, json=both)).status_code == 422

    async def change(**fields: Any) -> list[str | None]:
        assert (await registry.patch(path, json=fields)).status_code == 200
        return await sent_credentials(redis)

    assert await change(credential_from="file:two") == ["sk-from-file"]
    assert await change(weight=2) == ["sk-from-file"]
    assert await change(credential="sk-own") == ["sk-own"]
    assert await change(credential_from="file:two") == ["sk-from-file"]
    assert await change(credential_from=None) == [None]


async def test_a_verification_sends_what_is_referred_to(registry: httpx.AsyncClient, tmp_path: Path) -> None:
    async with answering(http(200, COMPLETION)) as upstream:
        model = await create_model(registry)
        backend = await create_backend(registry, model["id"], url=upstream.url, credential_from="file:two")
        path = f"/registry/v1/backends/{backend['id']}/verify"
        assert (await registry.post(path)).json()["ok"] is True
        assert b"authorization: bearer sk-from-file" in upstream.requests[0].lower()
        (tmp_path / "two").unlink()
        told = (await registry.post(path)).json()
        assert (told["ok"], "file two cannot be read" in told["detail"]) == (False, True)

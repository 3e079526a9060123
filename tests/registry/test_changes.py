"""The record of changes."""

import asyncpg
import httpx
import pytest

from tests.registry.conftest import create_backend, create_model


async def test_every_change_is_recorded_with_who_what_and_in_which_request(registry: httpx.AsyncClient) -> None:
    model = await create_model(registry)
    backend = await create_backend(registry, model["id"], credential="sk-x")
    path = f"/registry/v1/backends/{backend['id']}"
    await registry.patch(path, json={"weight": 4}, headers={"x-request-id": "req_told_by_the_caller"})
    await registry.delete(f"/registry/v1/models/{model['id']}")
    changes = (await registry.get("/registry/v1/changes")).json()["data"]
    assert {change["action"] for change in changes[:2]} == {"backend.delete", "model.delete"}
    assert changes[0]["route_table_version"] == changes[1]["route_table_version"]
    assert [change["action"] for change in changes[2:]] == ["backend.update", "backend.create", "model.create"]
    update = changes[2]
    assert (update["target_kind"], update["target_id"]) == ("backend", backend["id"])
    assert update["request_id"] == "req_told_by_the_caller"
    assert (update["before"]["weight"], update["after"]["weight"]) == (1, 4)
    assert update["after"]["has_credential"] is True
    assert len({change["actor"] for change in changes}) == 1
    assert changes[4]["before"] is None
    assert changes[4]["after"]["name"] == "tiny"


async def test_a_replaced_credential_is_recorded_as_such(registry: httpx.AsyncClient) -> None:
    model = await create_model(registry)
    backend = await create_backend(registry, model["id"], credential="sk-old")
    await registry.patch(f"/registry/v1/backends/{backend['id']}", json={"credential": "sk-new"})
    (newest, _) = (await registry.get("/registry/v1/changes", params={"target_id": backend["id"]})).json()["data"]
    assert newest["after"]["credential_replaced"] is True


async def test_a_change_that_changes_nothing_is_none(registry: httpx.AsyncClient) -> None:
    model = await create_model(registry)
    version = (await registry.get("/registry/v1/route-table")).json()["version"]
    await registry.patch(f"/registry/v1/models/{model['id']}", json={"status": "enabled"})
    await registry.patch(f"/registry/v1/models/{model['id']}", json={})
    assert len((await registry.get("/registry/v1/changes")).json()["data"]) == 1
    assert (await registry.get("/registry/v1/route-table")).json()["version"] == version


async def test_changes_come_in_pages(registry: httpx.AsyncClient) -> None:
    for number in range(3):
        await create_model(registry, f"m{number}")
    first = (await registry.get("/registry/v1/changes", params={"limit": 2})).json()
    second = (await registry.get("/registry/v1/changes", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [change["after"]["name"] for change in first["data"] + second["data"]] == ["m2", "m1", "m0"]


async def test_a_recorded_change_cannot_be_rewritten(registry: httpx.AsyncClient, registry_database: str) -> None:
    await create_model(registry)
    connection = await asyncpg.connect(registry_database)
    for statement in ("UPDATE changes SET actor = ''", "DELETE FROM changes", "TRUNCATE changes"):
        with pytest.raises(asyncpg.RaiseError, match="append-only"):
            await connection.execute(statement)
    await connection.close()

"""Backends over the API."""

import logging
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from ias.contracts.permissions import Role
from tests.kit.token_issuer import TokenIssuer
from tests.registry.conftest import RunningRegistry, create_backend, create_model

SECRET = "sk-never-to-be-seen"


async def test_a_new_backend_is_answered_with_every_field(registry: httpx.AsyncClient) -> None:
    model = await create_model(registry, "org/tiny")
    backend = await create_backend(registry, model["id"], url="HTTP://LocalHost:8000/")
    assert backend == {
        "id": backend["id"],
        "model_id": model["id"],
        "url": "http://localhost:8000/v1",
        "weight": 1,
        "upstream_model": "org/tiny",
        "engine": "openai",
        "has_credential": False,
        "credential_from": None,
        "tier": 0,
        "group": "stable",
        "concurrency_max": None,
        "environment": None,
        "draining": False,
        "status": "enabled",
        "version": 1,
        "created_at": backend["created_at"],
        "updated_at": backend["created_at"],
    }
    assert (await registry.get(f"/registry/v1/backends/{backend['id']}")).json() == backend


async def test_a_backend_needs_a_model(registry: httpx.AsyncClient) -> None:
    path = f"/registry/v1/models/{uuid4()}/backends"
    assert (await registry.post(path, json={"url": "http://10.0.0.1"})).status_code == 404
    assert (await registry.get(path)).status_code == 404


WRONG_BODIES: list[tuple[dict[str, Any], str]] = [
    ({}, "/url"),
    ({"url": 7}, "/url"),
    ({"url": "http://10.0.0.1", "weight": -1}, "/weight"),
    ({"url": "http://10.0.0.1", "weight": 1.5}, "/weight"),
    ({"url": "http://10.0.0.1", "weight": 1001}, "/weight"),
    ({"url": "http://10.0.0.1", "weight": None}, "/weight"),
    ({"url": "http://10.0.0.1", "upstream_model": ""}, "/upstream_model"),
    ({"url": "http://10.0.0.1", "upstream_model": "a\x00"}, "/upstream_model"),
    ({"url": "http://10.0.0.1", "engine": "magic"}, "/engine"),
    ({"url": "http://10.0.0.1", "draining": "yes"}, "/draining"),
    ({"url": "http://10.0.0.1", "tier": -1}, "/tier"),
    ({"url": "http://10.0.0.1", "group": "blue"}, "/group"),
    ({"url": "http://10.0.0.1", "concurrency_max": 0}, "/concurrency_max"),
    ({"url": "http://10.0.0.1", "environment": "a b"}, "/environment"),
    ({"url": "http://10.0.0.1", "credential": "two words"}, "/credential"),
    ({"url": "http://10.0.0.1", "credential": "x\r\nhost: evil"}, "/credential"),
    ({"url": "http://10.0.0.1", "credential": ""}, "/credential"),
    ({"url": "http://10.0.0.1", "credential": 5}, "/credential"),
    ({"url": "http://10.0.0.1", "api_key": SECRET}, "/api_key"),
    ({"url": "http://169.254.169.254/v1"}, "/url"),
]


async def test_a_wrong_body_is_refused_and_the_field_named(registry: httpx.AsyncClient) -> None:
    path = f"/registry/v1/models/{(await create_model(registry))['id']}/backends"
    for body, pointer in WRONG_BODIES:
        answer = await registry.post(path, json=body)
        assert answer.status_code == 422, (body, answer.text)
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer], body
        assert SECRET not in answer.text
    assert (await registry.get(path)).json()["data"] == []


async def test_a_url_is_checked_again_when_it_changes(registry: httpx.AsyncClient) -> None:
    model = await create_model(registry)
    path = f"/registry/v1/backends/{(await create_backend(registry, model['id']))['id']}"
    refused = await registry.patch(path, json={"url": "http://[fe80::1]/v1"})
    assert (refused.status_code, refused.json()["code"]) == (422, "egress_refused")
    assert (await registry.patch(path, json={"url": "https://10.1.2.3/"})).json()["url"] == "https://10.1.2.3/v1"


async def test_loopback_is_refused_unless_the_settings_allow_it(run_registry: RunningRegistry) -> None:
    async with run_registry(registry_allow_loopback=False) as registry:
        model = await create_model(registry)
        for url in ("http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000"):
            answer = await registry.post(f"/registry/v1/models/{model['id']}/backends", json={"url": url})
            assert (answer.status_code, answer.json()["code"]) == (422, "egress_refused"), url


CHANGES = {"weight": 0, "tier": 2, "group": "canary", "concurrency_max": 8, "environment": "eu-1", "engine": "vllm"}


async def test_each_field_changes_alone(registry: httpx.AsyncClient) -> None:
    model = await create_model(registry)
    backend = await create_backend(registry, model["id"], weight=5)
    path = f"/registry/v1/backends/{backend['id']}"
    for number, (field, value) in enumerate(CHANGES.items(), start=2):
        backend |= {field: value, "version": number}
        answer = (await registry.patch(path, json={field: value})).json()
        assert answer | {"updated_at": ""} == backend | {"updated_at": ""}
    for body in ({"weight": None}, {"url": None}, {"model_id": model["id"]}, {"version": 9}, {"status": "disabled"}):
        assert (await registry.patch(path, json=body)).status_code == 422, body


async def test_switches_are_actions_of_their_own_with_their_reason_kept(registry: httpx.AsyncClient) -> None:
    backend = await create_backend(registry, (await create_model(registry))["id"])
    path = f"/registry/v1/backends/{backend['id']}"
    states = [("disable", "disabled", False), ("drain", "disabled", True), ("enable", "enabled", True)]
    for version, (switch, status, draining) in enumerate([*states, ("resume", "enabled", False)], start=2):
        for _ in range(2):  # the second time nothing is left to do
            answer = await registry.post(f"{path}/{switch}", json={"reason": f"why {switch}"})
            shown = answer.json()
            assert (shown["status"], shown["draining"], shown["version"]) == (status, draining, version), answer.text
    changes = (await registry.get("/registry/v1/changes", params={"target_id": backend["id"]})).json()["data"]
    told = [(change["action"], change["after"].get("reason")) for change in changes]
    assert told[::-1][1:] == [(f"backend.{s}", f"why {s}") for s in ("disable", "drain", "enable", "resume")]
    assert (await registry.post(f"{path}/drain?dry_run=true")).json()["changes"][0]["after"]["draining"] is True
    assert (await registry.get(path)).json()["draining"] is False
    assert (await registry.post(f"{path}/disable", json={"reason": "x\ty"})).status_code == 422


async def test_a_deleted_backend_is_gone_and_its_credential_forgotten(
    registry: httpx.AsyncClient, registry_database: str
) -> None:
    model = await create_model(registry)
    backend = await create_backend(registry, model["id"], credential=SECRET)
    path = f"/registry/v1/backends/{backend['id']}"
    assert (await registry.delete(path)).status_code == 204
    assert [(await registry.get(path)).status_code, (await registry.delete(path)).status_code] == [404, 404]
    assert (await registry.patch(path, json={"weight": 2})).status_code == 404
    assert (await registry.get(f"/registry/v1/models/{model['id']}/backends")).json()["data"] == []
    connection = await asyncpg.connect(registry_database)
    assert await connection.fetchval("SELECT sealed_credential FROM backends") is None
    await connection.close()


async def test_a_credential_is_never_shown_stored_or_logged_in_clear(
    registry: httpx.AsyncClient,
    registry_database: str,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    model = await create_model(registry)
    created = await registry.post(
        f"/registry/v1/models/{model['id']}/backends",
        json={"url": "http://127.0.0.1:9", "upstream_model": "m", "credential": SECRET},
    )
    path = f"/registry/v1/backends/{created.json()['id']}"
    answers = [
        created,
        await registry.get(path),
        await registry.patch(path, json={"credential": SECRET + "2"}),
        await registry.get(f"/registry/v1/models/{model['id']}/backends"),
        await registry.post(f"{path}/verify"),
        await registry.post(f"/registry/v1/models/{model['id']}/backends", json={"credential": SECRET}),
        await registry.get("/registry/v1/changes"),
    ]
    assert [answer.status_code for answer in answers] == [201, 200, 200, 200, 200, 422, 200]
    assert created.json()["has_credential"] is True
    for answer in answers:
        assert SECRET not in answer.text
    connection = await asyncpg.connect(registry_database)
    stored = [
        str(dict(row))
        for query in ("SELECT * FROM backends", "SELECT * FROM changes")
        for row in await connection.fetch(query)
    ]
    assert len(stored) == 4
    await connection.close()
    assert not [row for row in stored if SECRET in row]
    captured = capsys.readouterr()
    assert SECRET not in caplog.text + captured.out + captured.err


async def test_a_change_that_was_decided_on_an_older_version_is_refused(registry: httpx.AsyncClient) -> None:
    model = await create_model(registry)
    path = f"/registry/v1/backends/{(await create_backend(registry, model['id']))['id']}"
    seen = (await registry.get(path)).headers["etag"]
    answers = [await registry.patch(path, json={"weight": n}, headers={"If-Match": seen}) for n in (2, 3)]
    answers.append(await registry.delete(path, headers={"If-Match": seen}))
    assert [answer.status_code for answer in answers] == [200, 412, 412]
    assert (await registry.get(path)).json()["weight"] == 2


async def test_null_removes_a_credential_and_absence_keeps_it(registry: httpx.AsyncClient) -> None:
    model = await create_model(registry)
    path = f"/registry/v1/backends/{(await create_backend(registry, model['id'], credential=SECRET))['id']}"
    assert (await registry.patch(path, json={"weight": 2})).json()["has_credential"] is True
    assert (await registry.patch(path, json={"credential": None})).json()["has_credential"] is False


async def test_pages_of_backends_join_to_the_whole_list(registry: httpx.AsyncClient) -> None:
    model, other = await create_model(registry, "a"), await create_model(registry, "b")
    created = {(await create_backend(registry, model["id"]))["id"] for _ in range(3)}
    await create_backend(registry, other["id"])
    path = f"/registry/v1/models/{model['id']}/backends"
    first = (await registry.get(path, params={"limit": 2})).json()
    second = (await registry.get(path, params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert {backend["id"] for backend in first["data"] + second["data"]} == created
    assert second["next_cursor"] is None
    elsewhere = await registry.get(
        f"/registry/v1/models/{other['id']}/backends", params={"cursor": first["next_cursor"]}
    )
    assert elsewhere.json()["code"] == "invalid_cursor"


async def test_backends_are_the_platforms_alone(registry: httpx.AsyncClient, issuer: TokenIssuer) -> None:
    model = await create_model(registry)
    backend = await create_backend(registry, model["id"])
    one, many = f"/registry/v1/backends/{backend['id']}", f"/registry/v1/models/{model['id']}/backends"
    asked = [
        ("GET", one, None),
        ("GET", many, None),
        ("POST", many, {"url": "http://10.0.0.1"}),
        ("PATCH", one, {"weight": 2}),
        ("DELETE", one, None),
        ("POST", f"{one}/verify", None),
        ("POST", f"{one}/disable", None),
        ("POST", f"{one}/enable", None),
        ("POST", f"{one}/drain", None),
        ("POST", f"{one}/resume", None),
        ("GET", f"/registry/v1/models/{model['id']}/route-policy", None),
        ("PATCH", f"/registry/v1/models/{model['id']}/route-policy", {"canary_percent": 0}),
        ("GET", "/registry/v1/changes", None),
        ("GET", "/registry/v1/route-table", None),
    ]
    for method, path, body in asked:
        for role in Role:
            headers = issuer.member(str(uuid4()), role)
            answer = await registry.request(method, path, json=body, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (method, path, role)
        nobody = await registry.request(method, path, json=body, headers={"Authorization": "Bearer x.y.z"})
        assert nobody.status_code == 401, (method, path)
    assert (await registry.get(one)).json() == backend

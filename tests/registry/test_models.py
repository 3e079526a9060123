"""Models over the API."""

from uuid import uuid4

import httpx

from ias.contracts.permissions import Role
from tests.kit.token_issuer import TokenIssuer
from tests.registry.conftest import create_backend, create_model

MODELS = "/registry/v1/models"


async def test_a_new_model_is_answered_with_every_field(registry: httpx.AsyncClient) -> None:
    model = await create_model(registry, "meta-llama/Llama-3.1-8B:free", output_tokens_max=100)
    assert model == {
        "id": model["id"],
        "name": "meta-llama/Llama-3.1-8B:free",
        "context_length": 8192,
        "output_tokens_max": 100,
        "aliases": [],
        "capabilities": [],
        "org_ids": None,
        "status": "enabled",
        "deprecated_at": None,
        "sunset_at": None,
        "replacement": None,
        "version": 1,
        "created_at": model["created_at"],
        "updated_at": model["created_at"],
    }
    assert (await registry.get(f"{MODELS}/{model['id']}")).json() == model


async def test_a_name_is_taken_once_and_free_again_after_deletion(registry: httpx.AsyncClient) -> None:
    model = await create_model(registry, "tiny")
    again = await registry.post(MODELS, json={"name": "tiny", "context_length": 1})
    assert (again.status_code, again.json()["code"]) == (409, "name_taken")
    assert (await registry.delete(f"{MODELS}/{model['id']}")).status_code == 204
    assert (await create_model(registry, "tiny"))["id"] != model["id"]


async def test_no_two_models_share_a_name_or_an_alias(registry: httpx.AsyncClient) -> None:
    model = await create_model(registry, "one", aliases=["fast", "gpt-x"])
    other = await create_model(registry, "two", aliases=["slow"])
    for body in ({"name": "fast"}, {"name": "three", "aliases": ["one"]}, {"name": "three", "aliases": ["x", "gpt-x"]}):
        refused = await registry.post(MODELS, json={"context_length": 1, **body})
        assert (refused.status_code, refused.json()["code"]) == (409, "name_taken"), body
    for aliases in (["slow", "fast"], ["one"]):
        refused = await registry.patch(f"{MODELS}/{other['id']}", json={"aliases": aliases})
        assert (refused.status_code, refused.json()["code"]) == (409, "name_taken"), aliases
    assert (await registry.patch(f"{MODELS}/{model['id']}", json={"aliases": ["gpt-x"]})).json()["version"] == 2
    moved = await registry.patch(f"{MODELS}/{other['id']}", json={"aliases": ["slow", "fast"]})
    assert moved.json()["aliases"] == ["slow", "fast"], "what was given up is free"
    assert (await registry.delete(f"{MODELS}/{model['id']}")).status_code == 204
    assert (await create_model(registry, "gpt-x"))["name"] == "gpt-x"


async def test_a_deprecated_model_names_its_replacement_and_its_end(registry: httpx.AsyncClient) -> None:
    old, new = await create_model(registry, "old"), await create_model(registry, "new", aliases=["newest"])
    path = f"{MODELS}/{old['id']}"
    body = {"status": "deprecated", "sunset_at": "2030-01-01T01:00:00+01:00", "replacement": "new"}
    shown = (await registry.patch(path, json=body)).json()
    assert (shown["status"], shown["sunset_at"], shown["replacement"]) == ("deprecated", "2030-01-01T00:00:00Z", "new")
    since = shown["deprecated_at"]
    assert since == shown["updated_at"]
    assert (await registry.patch(path, json={"status": "disabled"})).json()["deprecated_at"] == since
    assert (await registry.patch(path, json={"replacement": "newest"})).status_code == 422, "not a public name"
    refused = await registry.delete(f"{MODELS}/{new['id']}")
    assert (refused.status_code, refused.json()["code"]) == (409, "is_replacement")
    assert (await registry.patch(path, json={"status": "enabled"})).status_code == 422, "it would say both"
    back = await registry.patch(path, json={"status": "enabled", "sunset_at": None, "replacement": None})
    assert (back.status_code, back.json()["deprecated_at"]) == (200, None)
    assert (await registry.delete(f"{MODELS}/{new['id']}")).status_code == 204


async def test_a_model_for_some_orgs_does_not_exist_for_the_others(
    registry: httpx.AsyncClient, issuer: TokenIssuer
) -> None:
    mine, theirs, others = (str(uuid4()) for _ in range(3))
    model = await create_model(registry, org_ids=[mine, theirs])
    assert model["org_ids"] == [mine, theirs]
    path = f"{MODELS}/{model['id']}"
    member, stranger = issuer.member(mine, Role.VIEWER, str(uuid4())), issuer.member(others, Role.OWNER)
    assert (await registry.get(path, headers=member)).json() == model | {"org_ids": [mine]}
    assert (await registry.get(MODELS, headers=member)).json()["data"] == [model | {"org_ids": [mine]}]
    assert (await registry.get(path, headers=stranger)).status_code == 404
    assert (await registry.get(MODELS, headers=stranger)).json()["data"] == []
    assert (await registry.patch(path, json={"org_ids": []})).json()["org_ids"] == [], "nobody"
    assert (await registry.get(path, headers=member)).status_code == 404
    assert (await registry.patch(path, json={"org_ids": None})).json()["org_ids"] is None
    assert (await registry.get(path, headers=stranger)).status_code == 200


async def test_a_deleted_model_is_gone_with_its_backends(registry: httpx.AsyncClient) -> None:
    model = await create_model(registry)
    backend = await create_backend(registry, model["id"])
    await registry.delete(f"{MODELS}/{model['id']}")
    for path in (
        f"{MODELS}/{model['id']}",
        f"{MODELS}/{model['id']}/backends",
        f"/registry/v1/backends/{backend['id']}",
    ):
        assert (await registry.get(path)).status_code == 404, path
    assert (await registry.delete(f"{MODELS}/{model['id']}")).status_code == 404
    assert (await registry.get(MODELS)).json() == {"data": [], "next_cursor": None}


WRONG_BODIES: list[tuple[dict[str, object], str]] = [
    ({"context_length": 1}, "/name"),
    ({"name": "m"}, "/context_length"),
    ({"name": "", "context_length": 1}, "/name"),
    ({"name": "n" * 201, "context_length": 1}, "/name"),
    ({"name": "with space", "context_length": 1}, "/name"),
    ({"name": "m", "context_length": 0}, "/context_length"),
    ({"name": "m", "context_length": "8192"}, "/context_length"),
    ({"name": "m", "context_length": 8192.0}, "/context_length"),
    ({"name": "m", "context_length": True}, "/context_length"),
    ({"name": "m", "context_length": 1, "output_tokens_max": 2}, "/output_tokens_max"),
    ({"name": "m", "context_length": 1, "status": "gone"}, "/status"),
    ({"name": "m", "context_length": 1, "colour": "red"}, "/colour"),
    ({"name": "m", "context_length": 1, "aliases": ["a", "a"]}, "/aliases"),
    ({"name": "m", "context_length": 1, "aliases": ["m"]}, "/aliases"),
    ({"name": "m", "context_length": 1, "aliases": ["with space"]}, "/aliases/0"),
    ({"name": "m", "context_length": 1, "capabilities": ["magic"]}, "/capabilities/0"),
    ({"name": "m", "context_length": 1, "org_ids": ["acme"]}, "/org_ids/0"),
    ({"name": "m", "context_length": 1, "replacement": "m2"}, "/replacement"),
    ({"name": "m", "context_length": 1, "status": "deprecated", "replacement": "m2"}, "/replacement"),
    ({"name": "m", "context_length": 1, "status": "deprecated", "replacement": "m"}, "/replacement"),
    ({"name": "m", "context_length": 1, "sunset_at": "2030-01-01T00:00:00Z"}, "/sunset_at"),
    ({"name": "m", "context_length": 1, "status": "deprecated", "sunset_at": "2030-01-01T00:00:00"}, "/sunset_at"),
]


async def test_a_wrong_body_is_refused_and_the_field_named(registry: httpx.AsyncClient) -> None:
    for body, pointer in WRONG_BODIES:
        answer = await registry.post(MODELS, json=body)
        assert answer.status_code == 422, (body, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer], body
    assert (await registry.get(MODELS)).json()["data"] == []


async def test_only_sent_fields_change(registry: httpx.AsyncClient) -> None:
    model = await create_model(registry, output_tokens_max=10)
    path = f"{MODELS}/{model['id']}"
    changed = (await registry.patch(path, json={"status": "disabled"})).json()
    assert (changed["status"], changed["output_tokens_max"], changed["version"]) == ("disabled", 10, 2)
    emptied = (await registry.patch(path, json={"output_tokens_max": None})).json()
    assert (emptied["output_tokens_max"], emptied["version"]) == (None, 3)
    same = (await registry.patch(path, json={"status": "disabled"})).json()
    assert same == emptied


async def test_what_cannot_change_is_refused(registry: httpx.AsyncClient) -> None:
    model = await create_model(registry)
    for body in ({"status": None}, {"name": "other"}, {"context_length": None}):
        assert (await registry.patch(f"{MODELS}/{model['id']}", json=body)).status_code == 422, body


async def test_pages_join_to_the_whole_list_newest_first(registry: httpx.AsyncClient) -> None:
    created = [(await create_model(registry, f"m{number}"))["id"] for number in range(5)]
    seen: list[str] = []
    cursor = None
    while True:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await registry.get(MODELS, params=query)).json()
        assert len(page["data"]) <= 2
        seen += [model["id"] for model in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert sorted(seen) == sorted(created)
    assert seen == sorted(seen, reverse=True)


async def test_a_cursor_is_good_for_its_own_list_only(registry: httpx.AsyncClient) -> None:
    for number in range(2):
        await create_model(registry, f"m{number}")
    cursor = (await registry.get(MODELS, params={"limit": 1})).json()["next_cursor"]
    for query in ({"cursor": cursor, "name": "m0"}, {"cursor": cursor[:-2] + "xx"}, {"cursor": "!"}):
        answer = await registry.get(MODELS, params=query)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor"), query


async def test_a_model_is_found_by_its_name(registry: httpx.AsyncClient) -> None:
    await create_model(registry, "one")
    two = await create_model(registry, "org/two:latest")
    assert (await registry.get(MODELS, params={"name": "org/two:latest"})).json()["data"] == [two]
    assert (await registry.get(MODELS, params={"name": "absent"})).json()["data"] == []


async def test_a_text_that_the_database_cannot_hold_is_refused_and_no_failure(registry: httpx.AsyncClient) -> None:
    answer = await registry.get(f"{MODELS}?name=%00")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


async def test_a_dry_run_tells_what_would_change_and_changes_nothing(registry: httpx.AsyncClient) -> None:
    before = (await registry.get("/registry/v1/route-table")).json()["version"]
    tried = await registry.post(f"{MODELS}?dry_run=true", json={"name": "m", "context_length": 5})
    assert (tried.status_code, tried.json()["changes"][0]["after"]["name"]) == (200, "m")
    assert (await registry.get(MODELS)).json()["data"] == []
    model = await create_model(registry)
    changed = await registry.patch(f"{MODELS}/{model['id']}?dry_run=true", json={"status": "disabled"})
    assert changed.json()["changes"][0]["after"]["status"] == "disabled"
    deleted = await registry.delete(f"{MODELS}/{model['id']}?dry_run=true")
    assert (deleted.status_code, deleted.json()["changes"][0]["action"]) == (200, "model.delete")
    assert (await registry.get(f"{MODELS}/{model['id']}")).json() == model
    assert (await registry.get("/registry/v1/route-table")).json()["version"] == before + 1


async def test_a_change_that_was_decided_on_an_older_version_is_refused(registry: httpx.AsyncClient) -> None:
    path = f"{MODELS}/{(await create_model(registry))['id']}"
    seen = (await registry.get(path)).headers["etag"]
    changed = await registry.patch(path, json={"context_length": 9}, headers={"If-Match": seen})
    assert (changed.status_code, changed.headers["etag"] == seen) == (200, False)
    for late in (
        await registry.patch(path, json={"context_length": 10}, headers={"If-Match": seen}),
        await registry.delete(path, headers={"If-Match": seen}),
    ):
        assert (late.status_code, late.json()["code"]) == (412, "precondition_failed")
    assert (await registry.get(path)).json() == changed.json()
    assert (await registry.delete(path, headers={"If-Match": changed.headers["etag"]})).status_code == 204


async def test_every_role_reads_models_and_none_writes_them(registry: httpx.AsyncClient, issuer: TokenIssuer) -> None:
    model = await create_model(registry)
    for role in Role:
        headers = issuer.member(str(uuid4()), role)
        assert (await registry.get(MODELS, headers=headers)).json()["data"] == [model]
        assert (await registry.get(f"{MODELS}/{model['id']}", headers=headers)).status_code == 200
        refused = await registry.post(MODELS, json={"name": "m", "context_length": 1}, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert (await registry.patch(f"{MODELS}/{model['id']}", json={}, headers=headers)).status_code == 403
        assert (await registry.delete(f"{MODELS}/{model['id']}", headers=headers)).status_code == 403


async def test_nobody_reads_without_a_token(registry: httpx.AsyncClient) -> None:
    answer = await registry.get(MODELS, headers={"Authorization": ""})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")

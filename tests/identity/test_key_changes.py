"""Keys are rotated, changed and, when somebody finds one in public, revoked."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from ias.contracts.api_keys import KeyRecord, digest_key, generate_key
from tests.identity.database import execute, fetch
from tests.identity.mailbox import Mailbox
from tests.identity.platform import Caller, Identity, running, settings_for

ReadKey = Callable[[str], Awaitable[KeyRecord]]


@pytest.fixture
async def keys(admin: Caller) -> str:
    org = await admin.ok("POST", "/identity/v1/orgs", {"name": "acme"})
    [project] = (await admin.ok("GET", f"/identity/v1/orgs/{org['id']}/projects"))["data"]
    return f"/identity/v1/projects/{project['id']}/api-keys"


async def test_a_rotated_key_is_the_same_key_and_its_old_text_works_until_the_overlap_ends(
    admin: Caller, keys: str, read_key: ReadKey
) -> None:
    first = await admin.ok("POST", keys, {"name": "k", "models": ["small"]})
    path = f"/identity/v1/api-keys/{first['id']}"

    second = await admin.ok("POST", f"{path}/rotate", {"overlap_s": 600})

    old, new = await read_key(first["key"]), await read_key(second["key"])
    assert (old.key_id, new.key_id, old.models, new.models) == (first["id"], first["id"], ("small",), ("small",))
    assert new.expires_at is None
    assert old.expires_at is not None
    assert timedelta(0) < datetime.fromtimestamp(old.expires_at, UTC) - datetime.now(UTC) <= timedelta(seconds=600)
    assert first["key"] != second["key"]
    assert (await admin.ok("GET", path))["redacted"] == second["redacted"]

    third = await admin.ok("POST", f"{path}/rotate", {"overlap_s": 0})
    now = int(datetime.now(UTC).timestamp())
    assert (await read_key(third["key"])).expires_at is None
    for text in (first["key"], second["key"]):
        assert (await read_key(text)).expires_at <= now  # type: ignore[operator]

    await admin.ok("DELETE", path)
    for issued in (first, second, third):
        assert (await read_key(issued["key"])).status == "revoked"
    assert (await admin.post(f"{path}/rotate", json={})).status_code == 409


async def test_the_gateway_resolves_an_old_text_after_redis_lost_it(
    identity: Identity, admin: Caller, keys: str, redis: Redis
) -> None:
    first = await admin.ok("POST", keys, {"name": "k"})
    await admin.ok("POST", f"/identity/v1/api-keys/{first['id']}/rotate", {"overlap_s": 600})
    await redis.flushall()
    gateway = await identity.service()
    resolved = await gateway.ok("POST", "/internal/api-keys/resolve", {"digest": digest_key(first["key"])})
    assert (resolved["key"]["key_id"], resolved["key"]["status"]) == (first["id"], "active")
    assert resolved["key"]["expires_at"] is not None


async def test_an_old_text_never_outlives_the_key(
    admin: Caller, keys: str, read_key: ReadKey, database_url: str
) -> None:
    soon = (datetime.now(UTC) + timedelta(minutes=5)).replace(microsecond=0)
    first = await admin.ok("POST", keys, {"name": "k", "expires_at": soon.isoformat()})
    path = f"/identity/v1/api-keys/{first['id']}"
    await admin.ok("POST", f"{path}/rotate", {"overlap_s": 3600, "expires_at": "2099-01-01T00:00:00Z"})
    assert (await read_key(first["key"])).expires_at == int(soon.timestamp())

    await execute(database_url, "UPDATE api_keys SET expires_at = now() - interval '1 minute'")
    expired = await admin.post(f"{path}/rotate", json={})
    assert (expired.status_code, expired.json()["code"]) == (409, "key_expired")
    await admin.ok("POST", f"{path}/rotate", {"expires_at": "2099-01-01T00:00:00Z"})


async def test_a_keys_limits_change_at_the_gateways(admin: Caller, keys: str, read_key: ReadKey) -> None:
    issued = await admin.ok("POST", keys, {"name": "k", "models": ["small"]})
    path = f"/identity/v1/api-keys/{issued['id']}"
    body = {"name": "n", "models": None, "scopes": ["embeddings"], "ip_networks": ["10.0.0.1"]}
    changed = await admin.ok("PATCH", path, body)
    assert {name: changed[name] for name in body} == body | {"ip_networks": ["10.0.0.1/32"]}
    record = await read_key(issued["key"])
    assert (record.models, record.scopes, record.ip_networks) == (None, ("embeddings",), ("10.0.0.1/32",))
    assert (await admin.ok("PATCH", path, body))["version"] == changed["version"]
    for wrong in ({"digest": "0" * 64}, {"org_id": issued["org_id"]}, {"status": "active"}, {"user_id": None}):
        assert (await admin.patch(path, json=wrong)).status_code == 422, wrong
    await admin.ok("DELETE", path)
    assert (await admin.patch(path, json={"name": "again"})).status_code == 409


async def test_changes_that_race_leave_redis_with_the_last_of_them(
    admin: Caller, keys: str, read_key: ReadKey, identity: Identity
) -> None:
    issued = await admin.ok("POST", keys, {"name": "k"})
    path = f"/identity/v1/api-keys/{issued['id']}"
    gateway = await identity.service()
    digest = {"digest": digest_key(issued["key"])}

    async def read() -> None:
        for _ in range(5):
            await gateway.ok("POST", "/internal/api-keys/resolve", digest)

    changes = [admin.ok("PATCH", path, {"models": [f"m{number}"]}) for number in range(10)]
    await asyncio.gather(read(), *changes)
    await asyncio.gather(read(), admin.ok("DELETE", path))

    row = await admin.ok("GET", path)
    record = await read_key(issued["key"])
    assert (record.version, record.status) == (row["version"], "revoked")
    assert list(record.models or ()) == row["models"]


async def test_a_found_key_is_revoked_and_the_answer_tells_nothing(
    *, identity: Identity, admin: Caller, keys: str, read_key: ReadKey, database_url: str, mailbox: Mailbox
) -> None:
    first = await admin.ok("POST", keys, {"name": "k"})
    anonymous = await identity.anonymous()
    report = "/identity/v1/leaked-keys"

    answers = [
        await anonymous.post(report, json={"keys": [text], "found_at": "https://paste.example/1"})
        for text in (generate_key(), "sk-somebody-elses", first["key"], first["key"])
    ]

    assert {(answer.status_code, answer.content) for answer in answers} == {(202, b'{"received":1}')}
    assert (await read_key(first["key"])).status == "revoked"
    assert (await admin.ok("GET", f"/identity/v1/api-keys/{first['id']}"))["status"] == "revoked"
    entries = await fetch(database_url, "SELECT actor_kind, after FROM audit_log WHERE action = 'api_key.revoke'")
    assert len(entries) == 1
    assert "https://paste.example/1" in entries[0]["after"]
    assert first["key"] not in entries[0]["after"]
    mail = await mailbox.mail()
    assert mail["to"] == "root@example.com"
    assert first["redacted"] in mail.get_content()
    for wrong in ({"keys": [], "found_at": "x"}, {"keys": ["x"] * 21, "found_at": "x"}, {"keys": ["x"]}):
        assert (await anonymous.post(report, json=wrong)).status_code == 422


async def test_a_leaked_text_that_was_rotated_away_ends_itself_and_stops_nobody(
    *, identity: Identity, admin: Caller, keys: str, read_key: ReadKey, database_url: str, mailbox: Mailbox
) -> None:
    first = await admin.ok("POST", keys, {"name": "k"})
    second = await admin.ok("POST", f"/identity/v1/api-keys/{first['id']}/rotate", {"overlap_s": 600})
    anonymous = await identity.anonymous()
    for _ in range(3):
        report = {"keys": [first["key"]], "found_at": "https://paste.example/1"}
        assert (await anonymous.post("/identity/v1/leaked-keys", json=report)).status_code == 202
    now = int(datetime.now(UTC).timestamp())
    assert (await read_key(first["key"])).expires_at <= now  # type: ignore[operator]
    present = await read_key(second["key"])
    assert (present.status, present.expires_at) == ("active", None)
    assert "An earlier text" in (await mailbox.mail())["subject"]
    query = "SELECT 1 FROM audit_log WHERE actor_kind = 'system' AND action LIKE 'api_key.%'"
    assert (
        len(await fetch(database_url, query)) == 1
    )  # and one mail: reports of what has ended are no way to write to owners


async def test_nobody_is_shown_a_new_text_of_somebody_elses_own_key(
    identity: Identity, admin: Caller, keys: str
) -> None:
    [org] = (await admin.ok("GET", "/identity/v1/orgs"))["data"]
    developer = await identity.member(admin, org["id"], "developer")
    other = await identity.member(admin, org["id"], "developer", "other@example.com")
    own = await developer.ok("POST", keys, {"name": "own"})
    account = await developer.ok("POST", f"{keys.removesuffix('api-keys')}service-accounts", {"name": "ci"})
    shared = await developer.ok("POST", keys, {"name": "ci", "service_account_id": account["id"]})
    for caller in (other, admin):
        refused = await caller.post(f"/identity/v1/api-keys/{own['id']}/rotate", json={})
        assert (refused.status_code, refused.json()["code"]) == (403, "key_of_another")
        await caller.ok("POST", f"/identity/v1/api-keys/{shared['id']}/rotate", {})
    await developer.ok("POST", f"/identity/v1/api-keys/{own['id']}/rotate", {})


async def test_a_project_has_so_many_keys_in_use_and_no_more(
    database_url: str, redis_url: str, identity: Identity, admin: Caller, keys: str
) -> None:
    async with running(settings_for(database_url, redis_url, identity_project_keys_max=3)) as bounded:
        caller = await bounded.sign_in()
        soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        first = await caller.ok("POST", keys, {"name": "first", "expires_at": soon})

        answers = await asyncio.gather(*(caller.post(keys, json={"name": f"k{number}"}) for number in range(6)))

        assert sorted(answer.status_code for answer in answers) == [201, 201, 409, 409, 409, 409]
        refused = next(answer.json() for answer in answers if answer.status_code == 409)
        assert refused["code"] == "too_many_api_keys"
        assert "3 keys" in refused["detail"]
        path = f"/identity/v1/api-keys/{first['id']}"
        assert (await caller.post(f"{path}/rotate", json={})).status_code == 200, "it is no key more"

        # One that expires makes room, and comes back only where there is some.
        await execute(
            database_url, "UPDATE api_keys SET expires_at = now() - interval '1 s' WHERE expires_at IS NOT NULL"
        )
        last = await caller.ok("POST", keys, {"name": "last"})
        for back in (
            await caller.patch(path, json={"expires_at": soon}),
            await caller.post(f"{path}/rotate", json={"expires_at": soon}),
        ):
            assert (back.status_code, back.json()["code"]) == (409, "too_many_api_keys")
        await caller.ok("DELETE", f"/identity/v1/api-keys/{last['id']}")
        await caller.ok("PATCH", path, {"expires_at": soon})

"""API keys from issue to revocation, and what gateways are told of them."""

from typing import get_args
from uuid import uuid4

import msgspec
import pytest
from redis.asyncio import Redis

from ias.contracts import redis_keys
from ias.contracts.api_keys import KeyRecord, KeyScope, TenantRecord, digest_key, has_valid_checksum
from ias.identity.api.api_keys import KeyRecordAnswer, TenantRecordAnswer
from tests.identity.platform import Caller, Identity


async def read_key(redis: Redis, key: str) -> KeyRecord:
    return msgspec.json.decode(await redis.get(redis_keys.api_key(digest_key(key))) or b"", type=KeyRecord)


@pytest.fixture
async def project(admin: Caller) -> dict[str, str]:
    org = await admin.ok("POST", "/identity/v1/orgs", {"name": "acme"})
    project: dict[str, str] = await admin.ok("POST", f"/identity/v1/orgs/{org['id']}/projects", {"name": "chat"})
    return project


async def test_a_key_is_shown_once_and_redis_knows_it_with_its_org_and_project(
    admin: Caller, project: dict[str, str], redis: Redis
) -> None:
    issued = await admin.ok("POST", f"/identity/v1/projects/{project['id']}/api-keys", {"name": "mine"})

    assert has_valid_checksum(issued["key"])
    record = await read_key(redis, issued["key"])
    assert (record.key_id, record.project_id, record.org_id) == (issued["id"], project["id"], project["org_id"])
    assert (record.status, record.user_id, record.version) == ("active", admin.user_id, 1)
    for key in (redis_keys.org(project["org_id"]), redis_keys.project(project["id"])):
        tenant = msgspec.json.decode(await redis.get(key) or b"", type=TenantRecord)
        assert tenant.status == "active"
    again = await admin.ok("GET", f"/identity/v1/api-keys/{issued['id']}")
    assert "key" not in again
    assert issued["key"] not in str(again)
    assert again["redacted"].startswith("ias-sk-")
    assert "digest" not in again


async def test_a_revoked_key_is_revoked_in_redis_with_a_higher_version_and_stays_so(
    admin: Caller, project: dict[str, str], redis: Redis
) -> None:
    issued = await admin.ok("POST", f"/identity/v1/projects/{project['id']}/api-keys", {"name": "mine"})

    for _ in range(2):
        answer = await admin.delete(f"/identity/v1/api-keys/{issued['id']}")
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["x-ias-in-force"] == "true"

    record = await read_key(redis, issued["key"])
    assert (record.status, record.version) == ("revoked", 2)
    assert (await admin.ok("GET", f"/identity/v1/api-keys/{issued['id']}"))["status"] == "revoked"


async def test_the_gateway_resolves_a_digest_to_the_key_its_org_and_its_project(
    identity: Identity, admin: Caller, project: dict[str, str], redis: Redis
) -> None:
    issued = await admin.ok("POST", f"/identity/v1/projects/{project['id']}/api-keys", {"name": "mine"})
    digest = digest_key(issued["key"])
    await redis.delete(redis_keys.api_key(digest), redis_keys.org(project["org_id"]))
    gateway = await identity.service()

    resolved = await gateway.ok("POST", "/internal/api-keys/resolve", {"digest": digest})
    absent = await gateway.ok("POST", "/internal/api-keys/resolve", {"digest": digest_key("other")})

    assert resolved["key"]["key_id"] == issued["id"]
    assert resolved["org"]["id"] == project["org_id"]
    assert resolved["project"]["id"] == project["id"]
    assert absent == {"key": None, "org": None, "project": None}
    assert (await read_key(redis, issued["key"])).key_id == issued["id"]
    assert await redis.exists(redis_keys.org(project["org_id"]))


async def test_resolving_needs_a_service_token_for_identity(identity: Identity, admin: Caller) -> None:
    elsewhere = await identity.service("analytics")
    for caller, status in ((await identity.anonymous(), 401), (admin, 401), (elsewhere, 401)):
        answer = await caller.post("/internal/api-keys/resolve", json={"digest": digest_key("x")})
        assert answer.status_code == status


async def test_an_older_record_never_replaces_a_newer_one(
    admin: Caller, project: dict[str, str], redis: Redis, identity: Identity
) -> None:
    issued = await admin.ok("POST", f"/identity/v1/projects/{project['id']}/api-keys", {"name": "mine"})
    newer = msgspec.structs.replace(await read_key(redis, issued["key"]), version=9, status="revoked")
    await redis.set(redis_keys.api_key(digest_key(issued["key"])), msgspec.json.encode(newer))

    gateway = await identity.service()
    await gateway.ok("POST", "/internal/api-keys/resolve", {"digest": digest_key(issued["key"])})

    assert (await read_key(redis, issued["key"])).version == 9


async def test_a_key_carries_its_limits_to_the_gateway(admin: Caller, project: dict[str, str], redis: Redis) -> None:
    body = {
        "name": "narrow",
        "expires_at": "2099-01-01T00:00:00Z",
        "models": ["small"],
        "scopes": ["chat_completions", "models"],
        "ip_networks": ["10.1.2.3/8", "2001:db8::1"],
    }
    issued = await admin.ok("POST", f"/identity/v1/projects/{project['id']}/api-keys", body)

    record = await read_key(redis, issued["key"])

    assert record.expires_at == 4_070_908_800
    assert (record.models, record.scopes) == (("small",), ("chat_completions", "models"))
    assert record.ip_networks == ("10.0.0.0/8", "2001:db8::1/128")


async def test_a_service_account_holds_keys_of_its_own_project_only(admin: Caller, project: dict[str, str]) -> None:
    account = await admin.ok("POST", f"/identity/v1/projects/{project['id']}/service-accounts", {"name": "ci"})
    other = await admin.ok("POST", f"/identity/v1/orgs/{project['org_id']}/projects", {"name": "other"})
    body = {"name": "ci", "service_account_id": account["id"]}

    issued = await admin.ok("POST", f"/identity/v1/projects/{project['id']}/api-keys", body)
    elsewhere = await admin.post(f"/identity/v1/projects/{other['id']}/api-keys", json=body)

    assert (issued["service_account_id"], issued["user_id"]) == (account["id"], None)
    assert elsewhere.status_code == 422
    listed = await admin.ok("GET", f"/identity/v1/projects/{project['id']}/service-accounts")
    assert [item["name"] for item in listed["data"]] == ["ci"]


async def test_a_scope_that_no_endpoint_has_is_refused_with_those_that_there_are(
    admin: Caller, project: dict[str, str]
) -> None:
    body = {"name": "x", "scopes": ["chat/completions"]}
    answer = await admin.post(f"/identity/v1/projects/{project['id']}/api-keys", json=body)
    assert answer.status_code == 422
    for name in get_args(KeyScope):
        assert name in answer.text


async def test_a_key_that_makes_no_sense_is_refused(admin: Caller, project: dict[str, str]) -> None:
    for wrong in (
        {"name": ""},
        {"status": "active"},
        {"expires_at": "2001-01-01T00:00:00Z"},
        {"expires_at": "2099-01-01T00:00:00"},
        {"expires_at": "9999-12-31T23:59:59-12:00"},
        {"ip_networks": ["10.0.0.0/99"]},
        {"name": "nul\u0000"},
        {"models": "small"},
        {"service_account_id": str(uuid4())},
    ):
        answer = await admin.post(f"/identity/v1/projects/{project['id']}/api-keys", json={"name": "x", **wrong})
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json"), wrong
        assert answer.json()["errors"]


def test_the_resolved_answers_have_every_field_of_the_records() -> None:
    for record, answer in ((KeyRecord, KeyRecordAnswer), (TenantRecord, TenantRecordAnswer)):
        assert list(record.__struct_fields__) == list(answer.model_fields)

"""An org says how long its keys live, whose members may act in it, and from where."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from redis.asyncio import Redis

from ias.contracts import redis_keys
from ias.contracts.api_keys import TenantRecord
from ias.identity.core.org_rules import is_address_allowed, is_domain_allowed
from tests.identity.platform import PASSWORD, Caller, Identity

ORGS = "/identity/v1/orgs"


@pytest.fixture
async def org(admin: Caller) -> dict[str, str]:
    made: dict[str, str] = await admin.ok("POST", ORGS, {"name": "acme"})
    return made


async def test_keys_live_no_longer_than_the_org_lets_them(admin: Caller, org: dict[str, str]) -> None:
    await admin.ok("PATCH", f"{ORGS}/{org['id']}", {"key_lifetime_days_max": 30})
    [project] = (await admin.ok("GET", f"{ORGS}/{org['id']}/projects"))["data"]
    keys = f"/identity/v1/projects/{project['id']}/api-keys"
    now = datetime.now(UTC)

    unsaid = await admin.ok("POST", keys, {"name": "k"})
    assert timedelta(days=29) < datetime.fromisoformat(unsaid["expires_at"]) - now < timedelta(days=31)
    late = (now + timedelta(days=40)).isoformat()
    path = f"/identity/v1/api-keys/{unsaid['id']}"
    for method, url, body in [
        ("POST", keys, {"name": "k", "expires_at": late}),
        ("PATCH", path, {"expires_at": late}),
        ("POST", f"{path}/rotate", {"expires_at": late}),
    ]:
        answer = await admin.request(method, url, json=body)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/expires_at"), url
    assert (await admin.ok("PATCH", path, {"expires_at": None}))["expires_at"] is not None


async def change_as_root(identity: Identity, path: str, body: dict[str, object]) -> None:
    """As a platform admin whose token is fresh: other changes may have ended the one of before."""
    await (await identity.sign_in()).ok("PATCH", path, body)


async def test_members_act_in_an_org_from_its_networks_alone(
    identity: Identity, admin: Caller, org: dict[str, str], redis: Redis
) -> None:
    member = await identity.member(admin, org["id"], "owner")
    path = f"{ORGS}/{org['id']}"
    elsewhere = await member.patch(path, json={"ip_networks": ["203.0.113.0/24"]})
    assert (elsewhere.status_code, elsewhere.json()["errors"][0]["pointer"]) == (422, "/ip_networks")
    assert (await member.ok("PATCH", path, {"ip_networks": ["127.0.0.0/8"]}))["ip_networks"] == ["127.0.0.0/8"]
    member = await identity.sign_in(f"owner-{org['id']}@example.com", PASSWORD)
    await member.ok("GET", path)

    await change_as_root(identity, path, {"ip_networks": ["203.0.113.0/24"]})

    assert (await member.get(path)).status_code == 401  # its token shows what no longer holds
    member = await identity.sign_in(f"owner-{org['id']}@example.com", PASSWORD)
    assert (await member.get(path)).status_code in (403, 404)
    record = msgspec.json.decode(await redis.get(redis_keys.org(org["id"])) or b"", type=TenantRecord)
    assert record.ip_networks == ("203.0.113.0/24",)


async def test_members_of_other_domains_cannot_join_and_those_who_had_cannot_act(
    identity: Identity, admin: Caller, org: dict[str, str]
) -> None:
    path = f"{ORGS}/{org['id']}"
    inside = await identity.member(admin, org["id"], "owner", "a@in.example")
    outside = await identity.member(admin, org["id"], "owner", "b@out.example")
    assert (await outside.patch(path, json={"sign_in_domains": ["in.example"]})).status_code == 422
    changed = await inside.ok("PATCH", path, {"sign_in_domains": ["IN.example"]})
    assert changed["sign_in_domains"] == ["in.example"]

    assert (await outside.get(path)).status_code == 401
    outside = await identity.sign_in("b@out.example", PASSWORD)
    assert (await outside.get(path)).status_code in (403, 404)
    admin = await identity.sign_in()
    for noun in ("members", "invitations"):
        refused = await admin.post(f"{path}/{noun}", json={"email": "c@out.example", "role": "viewer"})
        assert (refused.status_code, refused.json()["code"]) == (422, "domain_not_allowed")


async def test_settings_that_make_no_sense_are_refused(admin: Caller, org: dict[str, str]) -> None:
    for wrong in (
        {"key_lifetime_days_max": 0},
        {"sign_in_domains": []},
        {"sign_in_domains": ["a@b"]},
        {"ip_networks": []},
        {"ip_networks": ["10.0.0.0/99"]},
        {"status": "deleted"},
        {"deleted_at": None},
        {"purged_at": None},
        {"version": 9},
    ):
        assert (await admin.patch(f"{ORGS}/{org['id']}", json=wrong)).status_code == 422, wrong


@pytest.mark.parametrize(
    ("source_ip", "allowed"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("11.0.0.1", False),
        ("2001:db8::1", False),
        (None, False),
        ("x", False),
    ],
)
def test_an_address_is_within_a_network_in_either_spelling(source_ip: str | None, allowed: bool) -> None:
    assert is_address_allowed(["10.0.0.0/8"], source_ip) is allowed
    assert is_address_allowed(None, source_ip)


def test_a_subdomain_is_another_domain() -> None:
    assert is_domain_allowed(["in.example"], "a@in.example")
    assert not is_domain_allowed(["in.example"], "a@sub.in.example")
    assert not is_domain_allowed(["in.example"], "a@evilin.example")

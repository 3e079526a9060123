"""What administrators of the platform do with users, whatever orgs these belong to."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import uuid4

import pyotp

from ias.contracts.api_keys import KeyRecord
from tests.identity.database import execute
from tests.identity.platform import ADMIN_EMAIL, PASSWORD, Caller, Identity

ORGS = "/identity/v1/orgs"
USERS = "/identity/v1/users"
SESSIONS = "/identity/v1/sessions"
FACTOR = "/identity/v1/me/second-factor"
EMAIL = "ann@example.com"


async def sign_in_status(identity: Identity) -> int:
    answer = await (await identity.anonymous()).post(SESSIONS, json={"email": EMAIL, "password": PASSWORD})
    return answer.status_code


async def test_a_suspended_user_is_out_everywhere_until_restored(
    identity: Identity, admin: Caller, read_key: Callable[[str], Awaitable[KeyRecord]]
) -> None:
    org = await admin.ok("POST", ORGS, {"name": "acme"})
    ann = await identity.member(admin, org["id"], "developer", EMAIL)
    [project] = (await ann.ok("GET", f"{ORGS}/{org['id']}/projects"))["data"]
    key = await ann.ok("POST", f"/identity/v1/projects/{project['id']}/api-keys", {"name": "own"})

    suspended = await admin.ok("PATCH", f"{USERS}/{ann.user_id}", {"status": "suspended"})

    assert (suspended["status"], (await read_key(key["key"])).status) == ("suspended", "suspended")
    assert (await ann.get("/identity/v1/me")).status_code == 401
    assert await sign_in_status(identity) == 401
    await admin.ok("PATCH", f"{USERS}/{ann.user_id}", {"status": "active"})
    assert ((await read_key(key["key"])).status, await sign_in_status(identity)) == ("active", 201)


async def test_somebody_always_administers_the_platform(identity: Identity, admin: Caller) -> None:
    own = f"{USERS}/{admin.user_id}"
    for change in ({"status": "suspended"}, {"platform_admin": False}):
        answer = await admin.patch(own, json=change)
        assert (answer.status_code, answer.json()["code"]) == (409, "last_platform_admin")
    org = await admin.ok("POST", ORGS, {"name": "acme"})
    ann = await identity.member(admin, org["id"], "viewer", EMAIL)
    assert (await ann.patch(f"{USERS}/{ann.user_id}", json={"platform_admin": True})).status_code == 403
    await admin.ok("PATCH", f"{USERS}/{ann.user_id}", {"platform_admin": True})
    ann = await identity.sign_in(EMAIL, PASSWORD)

    answers = await asyncio.gather(
        admin.patch(f"{USERS}/{ann.user_id}", json={"platform_admin": False}),
        ann.patch(own, json={"platform_admin": False}),
    )

    # Whoever comes second finds themselves the last; when they come late enough, their token says that they are none.
    assert sorted(answer.status_code for answer in answers) in ([200, 401], [200, 403], [200, 409])
    callers = [await identity.sign_in(), await identity.sign_in(EMAIL, PASSWORD)]
    assert sorted([(await caller.get(USERS)).status_code for caller in callers]) == [200, 403]


async def test_a_lost_second_factor_is_taken_away_and_every_session_ends(
    identity: Identity, admin: Caller, database_url: str
) -> None:
    org = await admin.ok("POST", ORGS, {"name": "acme"})
    ann = await identity.member(admin, org["id"], "owner", EMAIL)
    path = f"{USERS}/{ann.user_id}/second-factor"
    assert (await admin.delete(path)).status_code == 404
    enrolled = await ann.ok("POST", FACTOR, {"password": PASSWORD})
    await ann.ok("POST", f"{FACTOR}/confirm", {"code": pyotp.TOTP(enrolled["secret"]).now()})
    assert await sign_in_status(identity) == 202
    assert (await ann.delete(path)).status_code == 403

    await admin.ok("DELETE", path)

    assert (await ann.get("/identity/v1/me")).status_code == 401
    assert await sign_in_status(identity) == 201


async def test_users_are_found_by_any_spelling_of_their_email_and_read_page_by_page(
    identity: Identity, admin: Caller, database_url: str
) -> None:
    org = await admin.ok("POST", ORGS, {"name": "acme"})
    ann = await identity.member(admin, org["id"], "viewer", EMAIL)
    await execute(database_url, "UPDATE users SET email_confirmed_at = NULL WHERE email = $1", EMAIL)
    [found] = (await admin.ok("GET", f"{USERS}?email=ANN%40Example.com"))["data"]
    assert (found["id"], found["email_confirmed_at"], found["platform_admin"]) == (ann.user_id, None, False)
    assert "password" not in str(found)
    for absent in ("nobody%40example.com", "%00", "x"):
        assert (await admin.ok("GET", f"{USERS}?email={absent}"))["data"] == []
    page = await admin.ok("GET", f"{USERS}?limit=1")
    rest = await admin.ok("GET", f"{USERS}?limit=1&cursor={page['next_cursor']}")
    assert [page["data"][0]["email"], rest["data"][0]["email"]] == [EMAIL, ADMIN_EMAIL]
    assert rest["next_cursor"] is None


async def test_users_are_nobodys_but_the_platforms(identity: Identity, admin: Caller) -> None:
    org = await admin.ok("POST", ORGS, {"name": "acme"})
    owner = await identity.member(admin, org["id"], "owner")
    for user_id in (owner.user_id, admin.user_id, str(uuid4())):
        for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", "/second-factor")):
            answer = await owner.request(method, f"{USERS}/{user_id}{path}", json={} if method == "PATCH" else None)
            assert answer.status_code == 403
    assert (await owner.get(USERS)).status_code == 403
    assert (await admin.get(f"{USERS}/{uuid4()}")).status_code == 404
    assert (await admin.patch(f"{USERS}/{owner.user_id}", json={"email": "x@example.com"})).status_code == 422


async def test_a_change_meant_for_an_older_version_is_refused(identity: Identity, admin: Caller) -> None:
    org = await admin.ok("POST", ORGS, {"name": "acme"})
    ann = await identity.member(admin, org["id"], "viewer", EMAIL)
    path = f"{USERS}/{ann.user_id}"
    etag = (await admin.get(path)).headers["etag"]
    headers = {"if-match": etag}
    assert (await admin.patch(path, json={"status": "suspended"}, headers=headers)).status_code == 200
    assert (await admin.patch(path, json={"status": "active"}, headers=headers)).status_code == 412

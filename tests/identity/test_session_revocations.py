"""A token that is no longer good is refused by every service, and where somebody is signed in is theirs alone to see and end."""

import asyncio
from collections.abc import Callable

import httpx
import pytest
from redis.asyncio import Redis

from ias.contracts import redis_keys
from ias.kit.redis_documents import open_redis
from ias.kit.revocations import Revocations
from tests.identity.database import fetch
from tests.identity.platform import ADMIN_EMAIL, ADMIN_PASSWORD, PASSWORD, Caller, Identity, eventually, settings_for
from tests.identity.platform import running as running_identity
from tests.servers.redis_process import RedisProcess

SESSIONS = "/identity/v1/sessions"


async def session_ids(caller: Caller) -> list[str]:
    return [session["id"] for session in (await caller.ok("GET", SESSIONS))["data"]]


async def test_somebody_sees_where_they_are_signed_in_and_ends_it_there(identity: Identity) -> None:
    here, there, elsewhere = [await identity.sign_in() for _ in range(3)]

    listed = (await here.ok("GET", f"{SESSIONS}?limit=2"))["data"]
    assert len(listed) == 2
    everywhere = (await here.ok("GET", SESSIONS))["data"]
    assert [session["current"] for session in everywhere] == [False, False, True]
    assert everywhere[0]["user_agent"].startswith("python-httpx")

    await here.ok("DELETE", f"{SESSIONS}/{everywhere[1]['id']}")
    assert (await there.get(SESSIONS)).json()["code"] == "token_revoked"
    assert await session_ids(here) == [everywhere[0]["id"], everywhere[2]["id"]]
    await here.ok("DELETE", f"{SESSIONS}/others")
    assert (await elsewhere.get(SESSIONS)).status_code == 401
    assert await session_ids(here) == [everywhere[2]["id"]]


async def test_nobody_sees_or_ends_the_session_of_somebody_else(identity: Identity, admin: Caller) -> None:
    org = await admin.ok("POST", "/identity/v1/orgs", {"name": "acme"})
    ann = await identity.member(admin, org["id"], "viewer")
    [anns] = await session_ids(ann)

    foreign = await admin.delete(f"{SESSIONS}/{anns}")
    absent = await admin.delete(f"{SESSIONS}/{org['id']}")

    assert foreign.status_code == absent.status_code == 404
    assert foreign.text.replace(anns, org["id"]) == absent.text
    assert anns not in await session_ids(admin)
    assert await session_ids(ann) == [anns]


async def test_an_administrator_signs_out_a_member_of_their_org_and_nobody_above_them(
    identity: Identity, admin: Caller
) -> None:
    orgs = [await admin.ok("POST", "/identity/v1/orgs", {"name": name}) for name in ("acme", "other")]
    paths = [f"/identity/v1/orgs/{org['id']}/members" for org in orgs]
    viewer = await identity.member(admin, orgs[0]["id"], "viewer")
    theirs = await identity.member(admin, orgs[0]["id"], "admin")
    foreign = await identity.member(admin, orgs[1]["id"], "owner")

    for caller, path, status in (
        (foreign, f"{paths[0]}/{viewer.user_id}/sessions", 404),
        (foreign, f"{paths[1]}/{viewer.user_id}/sessions", 404),
        (theirs, f"{paths[0]}/{admin.user_id}/sessions", 403),
        (viewer, f"{paths[0]}/{theirs.user_id}/sessions", 403),
    ):
        for method in ("GET", "DELETE"):
            assert (await caller.request(method, path)).status_code == status, (method, path)
    path = f"{paths[0]}/{viewer.user_id}/sessions"
    assert len((await theirs.ok("GET", path))["data"]) == 1
    await theirs.ok("DELETE", path)
    assert (await viewer.get("/identity/v1/me")).status_code == 401
    assert (await theirs.ok("GET", path))["data"] == []


async def test_whoever_loses_something_must_refresh_their_token_first(
    identity: Identity, admin: Caller, database_url: str
) -> None:
    org = await admin.ok("POST", "/identity/v1/orgs", {"name": "acme"})
    caller = await identity.anonymous()
    email = "dev@example.com"
    body = {"email": email, "role": "developer", "password": PASSWORD}
    member = await admin.ok("POST", f"/identity/v1/orgs/{org['id']}/members", body)
    tokens = await caller.ok("POST", SESSIONS, {"email": email, "password": PASSWORD})
    caller.headers["authorization"] = f"Bearer {tokens['access_token']}"
    await caller.ok("GET", "/identity/v1/me")

    await admin.ok("PATCH", f"/identity/v1/orgs/{org['id']}/members/{member['user_id']}", {"role": "viewer"})

    assert (await caller.get("/identity/v1/me")).json()["code"] == "token_revoked"
    tokens = await caller.ok("POST", f"{SESSIONS}/refresh", {"refresh_token": tokens["refresh_token"]})
    caller.headers["authorization"] = f"Bearer {tokens['access_token']}"
    [membership] = (await caller.ok("GET", "/identity/v1/me"))["memberships"]
    assert membership["role"] == "viewer"


async def test_another_process_refuses_a_revoked_token_as_soon_as_it_asks_again(
    database_url: str, redis_url: str, redis: Redis
) -> None:
    settings = settings_for(database_url, redis_url)
    async with running_identity(settings) as here, running_identity(settings) as there:
        caller = await here.sign_in()
        neighbour = await there.anonymous()
        neighbour.headers["authorization"] = caller.headers["authorization"]
        await neighbour.ok("GET", SESSIONS)
        await caller.ok("DELETE", f"{SESSIONS}/current")

        async def is_refused() -> bool:
            return (await neighbour.get(SESSIONS)).status_code == 401

        await eventually(is_refused)


async def test_what_redis_lost_or_was_not_told_it_is_told_again(
    database_url: str, private_redis: Callable[..., RedisProcess]
) -> None:
    server = private_redis()
    async with running_identity(settings_for(database_url, server.url)) as identity:
        caller = await identity.sign_in()
        server.kill()
        # While nobody can be asked, a token is believed, and a session can be ended.
        await caller.ok("GET", "/identity/v1/orgs")
        [session_id] = await session_ids(caller)
        await caller.ok("DELETE", f"{SESSIONS}/current")
        server.start()

        async with Redis.from_url(server.url) as redis:

            async def is_known() -> bool:
                return bool(await redis.exists(redis_keys.ended_session(session_id)))

            await eventually(is_known)
            assert 0 < await redis.ttl(redis_keys.ended_session(session_id)) < 1000

            async def is_refused() -> bool:
                return (await caller.get("/identity/v1/orgs")).status_code == 401

            await eventually(is_refused)


async def test_an_older_version_never_replaces_a_newer_one(redis_url: str) -> None:
    redis = open_redis(redis_url, 1.0)
    revocations = Revocations(redis, remembered_s=0)
    for version in (3, 2):
        await revocations.tell([], {"ann": version}, token_lifetime_s=60)
    assert await revocations.is_revoked("ann", "session", 2)
    assert not await revocations.is_revoked("ann", "session", 3)
    assert not await revocations.is_revoked("bob", "session", 1)
    await redis.aclose()


async def test_two_refreshes_at_once_are_a_theft_unless_a_browser_does_it(identity: Identity) -> None:
    caller = await identity.anonymous()
    tokens = await caller.ok("POST", SESSIONS, {"email": ADMIN_EMAIL, "password": ADMIN_PASSWORD})
    body = {"refresh_token": tokens["refresh_token"]}
    answers = await asyncio.gather(*(caller.post(f"{SESSIONS}/refresh", json=body) for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [200, 401]
    [won] = [answer.json() for answer in answers if answer.status_code == 200]
    again = await caller.post(f"{SESSIONS}/refresh", json={"refresh_token": won["refresh_token"]})
    assert again.status_code == 401


CSRF = {"x-ias-csrf": "1"}


@pytest.fixture
async def browser(identity: Identity) -> Caller:
    caller = await identity.anonymous()
    caller.base_url = httpx.URL("https://ias.example")
    return caller


async def sign_in(browser: Caller, headers: dict[str, str] = CSRF) -> httpx.Response:
    body = {"email": ADMIN_EMAIL, "password": ADMIN_PASSWORD, "transport": "cookies"}
    return await browser.post(SESSIONS, json=body, headers=headers)


async def test_a_browser_gets_cookies_that_no_script_and_no_other_site_can_use(browser: Caller) -> None:
    answer = await sign_in(browser)

    assert (answer.status_code, answer.json()["access_token"], answer.json()["refresh_token"]) == (201, None, None)
    cookies = answer.headers.get_list("set-cookie")
    assert len(cookies) == 2
    for cookie in cookies:
        name, *attributes = cookie.split("; ")
        assert name.startswith("__Host-ias-")
        assert {"HttpOnly", "Secure", "SameSite=strict", "Path=/"} <= set(attributes)
        assert not [attribute for attribute in attributes if attribute.lower().startswith("domain")]
    assert (await browser.ok("GET", "/identity/v1/me"))["email"] == ADMIN_EMAIL


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-ias-csrf": "0"},
        CSRF | {"sec-fetch-site": "cross-site"},
        CSRF | {"sec-fetch-site": "same-site"},
        CSRF | {"sec-fetch-site": "none"},
        CSRF | {"origin": "https://evil.example"},
        CSRF | {"origin": "null"},
        CSRF | {"origin": "https://ias.example.evil.example"},
    ],
)
async def test_a_foreign_page_changes_nothing_with_the_cookies_of_its_visitor(
    browser: Caller, headers: dict[str, str]
) -> None:
    await sign_in(browser)
    for answer in (
        await browser.post("/identity/v1/orgs", json={"name": "theirs"}, headers=headers),
        await browser.delete(f"{SESSIONS}/current", headers=headers),
        await browser.post(f"{SESSIONS}/refresh", json={}, headers=headers),
        await sign_in(browser, headers),  # signing a visitor in as somebody else
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "csrf")
    assert (await browser.ok("GET", "/identity/v1/orgs"))["data"] == []


async def test_a_page_of_the_same_origin_works_and_signs_out(browser: Caller) -> None:
    await sign_in(browser, CSRF | {"origin": "https://ias.example"})
    made = await browser.post(
        "/identity/v1/orgs", json={"name": "ours"}, headers=CSRF | {"sec-fetch-site": "same-origin"}
    )
    assert made.status_code == 201
    assert (await browser.delete(f"{SESSIONS}/current", headers=CSRF)).status_code == 204
    assert dict(browser.cookies) == {}


async def test_two_tabs_may_refresh_at_the_same_time_and_there_is_still_one_line_of_tokens(
    browser: Caller, database_url: str
) -> None:
    await sign_in(browser)
    before = dict(browser.cookies)
    first = await browser.post(f"{SESSIONS}/refresh", json={}, headers=CSRF)
    late_headers = CSRF | {"cookie": "; ".join(f"{name}={value}" for name, value in before.items())}
    async with httpx.AsyncClient(transport=browser._transport, base_url="https://ias.example") as other_tab:
        late = await other_tab.post(f"{SESSIONS}/refresh", json={}, headers=late_headers)
        assert (first.status_code, late.status_code) == (200, 200)
        assert not [cookie for cookie in late.headers.get_list("set-cookie") if "refresh" in cookie]
        # Whoever comes with it in a body is no tab.
        token = before["__Host-ias-refresh"]
        thief = await other_tab.post(f"{SESSIONS}/refresh", json={"refresh_token": token})
        assert thief.status_code == 401
    assert (await browser.post(f"{SESSIONS}/refresh", json={}, headers=CSRF)).status_code == 401
    assert len(await fetch(database_url, "SELECT 1 FROM sessions WHERE revoked_at IS NOT NULL")) == 1


async def test_a_session_planted_in_a_browser_is_not_the_one_that_signing_in_gives(
    browser: Caller, identity: Identity
) -> None:
    planted = await (await identity.anonymous()).ok(
        "POST", SESSIONS, {"email": ADMIN_EMAIL, "password": ADMIN_PASSWORD}
    )
    browser.cookies.set("__Host-ias-refresh", planted["refresh_token"], domain="ias.example", path="/")
    browser.cookies.set("__Host-ias-access", planted["access_token"], domain="ias.example", path="/")

    answer = await sign_in(browser)

    assert answer.json()["session_id"] != planted["session_id"]
    assert planted["refresh_token"] not in str(answer.headers)
    assert (await browser.ok("GET", "/identity/v1/me"))["session_id"] == answer.json()["session_id"]


async def test_a_header_counts_before_a_cookie(browser: Caller) -> None:
    await sign_in(browser)
    answer = await browser.get("/identity/v1/me", headers={"authorization": "Bearer nonsense"})
    assert answer.status_code == 401

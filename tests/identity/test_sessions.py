"""Signing in, staying signed in, signing out."""

from datetime import datetime

import httpx
import pytest

from ias.identity.core.sign_in_attempts import FAILURES_FREE, LOCK_LONGEST, lock_duration
from tests.identity.database import execute, fetch
from tests.identity.platform import ADMIN_EMAIL, ADMIN_PASSWORD, Caller, Identity

SESSIONS = "/identity/v1/sessions"


async def try_password(caller: Caller, password: str, email: str = ADMIN_EMAIL) -> httpx.Response:
    return await caller.post(SESSIONS, json={"email": email, "password": password})


async def sign_in(caller: Caller) -> dict[str, str]:
    session: dict[str, str] = await caller.ok("POST", SESSIONS, {"email": ADMIN_EMAIL, "password": ADMIN_PASSWORD})
    return session


async def test_signing_in_gives_a_token_that_opens_the_management_api(identity: Identity) -> None:
    caller = await identity.anonymous()
    session = await sign_in(caller)
    caller.headers["authorization"] = f"bearer {session['access_token']}"

    me = await caller.ok("GET", "/identity/v1/me")

    assert (me["email"], me["platform_admin"]) == (ADMIN_EMAIL, True)
    assert datetime.fromisoformat(session["expires_at"]).tzinfo is not None


@pytest.mark.parametrize("email", ["ROOT@Example.com", "  root@example.com ", "\uff52oot@example.com"])
async def test_an_email_is_the_same_in_any_case_and_any_width(identity: Identity, email: str) -> None:
    answer = await try_password(await identity.anonymous(), ADMIN_PASSWORD, email)
    assert answer.status_code == 201


async def test_a_wrong_password_and_an_unknown_email_get_the_same_answer(identity: Identity) -> None:
    caller = await identity.anonymous()
    wrong = await try_password(caller, "wrong")
    unknown = await try_password(caller, "wrong", "nobody@example.com")
    nonsense = await try_password(caller, "wrong", "no\u0000body")

    assert wrong.status_code == unknown.status_code == nonsense.status_code == 401
    assert wrong.content == unknown.content == nonsense.content
    assert wrong.json()["code"] == "invalid_credentials"
    assert set(wrong.headers) == set(unknown.headers)


@pytest.mark.parametrize("password", ["x" * 73, "é" * 37])
async def test_a_password_over_72_bytes_is_refused_and_not_cut(identity: Identity, password: str) -> None:
    answer = await try_password(await identity.anonymous(), password)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_password")
    assert password not in answer.text


@pytest.mark.parametrize("email", [ADMIN_EMAIL, "nobody@example.com"])
async def test_too_many_wrong_passwords_lock_an_email_whether_or_not_anybody_has_it(
    identity: Identity, database_url: str, email: str
) -> None:
    caller = await identity.anonymous()
    for _ in range(FAILURES_FREE):
        assert (await try_password(caller, "wrong", email)).status_code == 401

    locked = await try_password(caller, ADMIN_PASSWORD, email)

    assert (locked.status_code, locked.json()["code"]) == (429, "too_many_attempts")
    assert 1 <= int(locked.headers["retry-after"]) <= 31
    await execute(database_url, "UPDATE sign_in_attempts SET locked_until = now() - interval '1 second'")
    assert (await try_password(caller, ADMIN_PASSWORD, email)).status_code == (201 if email == ADMIN_EMAIL else 401)


async def test_the_right_password_forgets_the_failures(identity: Identity, database_url: str) -> None:
    caller = await identity.anonymous()
    for _ in range(FAILURES_FREE - 1):
        await try_password(caller, "wrong")
    await sign_in(caller)
    assert [row["failures"] for row in await fetch(database_url, "SELECT failures FROM sign_in_attempts")] == [
        FAILURES_FREE - 1  # of the address
    ]


def test_each_failure_beyond_the_free_ones_doubles_the_wait_up_to_a_limit() -> None:
    waits = [lock_duration(more).total_seconds() for more in range(40)]
    assert waits[:4] == [30, 60, 120, 240]
    assert waits[-1] == LOCK_LONGEST.total_seconds()


async def test_a_refresh_token_gives_new_tokens_once(identity: Identity) -> None:
    caller = await identity.anonymous()
    first = await sign_in(caller)

    second = await caller.ok("POST", f"{SESSIONS}/refresh", {"refresh_token": first["refresh_token"]})

    assert second["session_id"] == first["session_id"]
    assert second["refresh_token"] != first["refresh_token"]
    caller.headers["authorization"] = f"Bearer {second['access_token']}"
    await caller.ok("GET", "/identity/v1/me")


async def test_using_a_refresh_token_twice_ends_the_whole_session(identity: Identity, database_url: str) -> None:
    caller = await identity.anonymous()
    first = await sign_in(caller)
    second = await caller.ok("POST", f"{SESSIONS}/refresh", {"refresh_token": first["refresh_token"]})

    stolen = await caller.post(f"{SESSIONS}/refresh", json={"refresh_token": first["refresh_token"]})
    rightful = await caller.post(f"{SESSIONS}/refresh", json={"refresh_token": second["refresh_token"]})

    assert (stolen.status_code, rightful.status_code) == (401, 401)
    caller.headers["authorization"] = f"Bearer {second['access_token']}"
    assert (await caller.get("/identity/v1/me")).status_code == 401
    assert await fetch(database_url, "SELECT 1 FROM audit_log WHERE action = 'session.revoke'")


async def test_a_session_that_expired_or_whose_user_was_suspended_is_not_refreshed(
    identity: Identity, database_url: str
) -> None:
    caller = await identity.anonymous()
    for statement in ("UPDATE sessions SET expires_at = now()", "UPDATE users SET status = 'suspended'"):
        session = await sign_in(caller)
        await execute(database_url, statement)
        answer = await caller.post(f"{SESSIONS}/refresh", json={"refresh_token": session["refresh_token"]})
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_refresh_token")
    assert (await try_password(caller, ADMIN_PASSWORD)).json()["code"] == "account_suspended"


async def test_signing_out_ends_the_session(identity: Identity) -> None:
    caller = await identity.anonymous()
    session = await sign_in(caller)
    caller.headers["authorization"] = f"Bearer {session['access_token']}"

    assert (await caller.delete(f"{SESSIONS}/current")).status_code == 204

    for path in ("/identity/v1/me", "/identity/v1/orgs"):
        answer = await caller.get(path)
        assert (answer.status_code, answer.json()["code"]) == (401, "token_revoked")
    refreshed = await caller.post(f"{SESSIONS}/refresh", json={"refresh_token": session["refresh_token"]})
    assert refreshed.status_code == 401


async def test_refresh_tokens_and_passwords_are_stored_as_digests_alone(identity: Identity, database_url: str) -> None:
    session = await sign_in(await identity.anonymous())
    stored = str(await fetch(database_url, "SELECT * FROM refresh_tokens, sessions, users, signing_keys, audit_log"))
    for secret in (session["refresh_token"], session["access_token"], ADMIN_PASSWORD, '"d":'):
        assert secret not in stored

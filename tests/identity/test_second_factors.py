"""The second factor: wanted when it was set up, used once, and not to be had around."""

import asyncio
import time
from typing import Any

import httpx
import pyotp
import pytest

from ias.identity.core.sign_in_attempts import FAILURES_FREE
from ias.identity.core.sign_ins import CHALLENGE_TRIES_MAX
from tests.identity.database import connected, execute, fetch
from tests.identity.mailbox import Mailbox
from tests.identity.platform import ADMIN_EMAIL, ADMIN_PASSWORD, Caller, Identity

FACTOR = "/identity/v1/me/second-factor"
SESSIONS = "/identity/v1/sessions"
COMPLETE = f"{SESSIONS}/second-factor"
PROOF = {"password": ADMIN_PASSWORD}


class App:
    """An authenticator app, whose clock can be set ahead."""

    def __init__(self, secret: str) -> None:
        self._totp = pyotp.TOTP(secret)

    def code(self, steps: int = 0) -> str:
        return self._totp.at(time.time() + 30 * steps)


@pytest.fixture
async def app(admin: Caller) -> App:
    """Set up for the administrator, with the code of the step before used up."""
    enrolment = await admin.ok("POST", FACTOR, PROOF)
    app = App(enrolment["secret"])
    await admin.ok("POST", f"{FACTOR}/confirm", {"code": app.code(-1)})
    return app


async def challenge(identity: Identity) -> tuple[Caller, str]:
    caller = await identity.anonymous()
    answer = await caller.post(SESSIONS, json={"email": ADMIN_EMAIL, "password": ADMIN_PASSWORD})
    assert (answer.status_code, set(answer.json())) == (202, {"challenge", "expires_at"})
    return caller, answer.json()["challenge"]


async def reply(caller: Caller, token: str, code: str) -> httpx.Response:
    return await caller.post(COMPLETE, json={"challenge": token, "code": code})


async def test_with_a_second_factor_the_password_alone_opens_nothing(
    identity: Identity, admin: Caller, app: App, database_url: str
) -> None:
    caller, token = await challenge(identity)
    before = len(await fetch(database_url, "SELECT 1 FROM sessions"))
    caller.headers["authorization"] = f"Bearer {token}"
    assert (await caller.get("/identity/v1/me")).status_code == 401
    del caller.headers["authorization"]

    signed = await reply(caller, token, app.code())

    assert signed.status_code == 201
    assert len(await fetch(database_url, "SELECT 1 FROM sessions")) == before + 1
    caller.headers["authorization"] = f"Bearer {signed.json()['access_token']}"
    await caller.ok("GET", "/identity/v1/me")
    state = await caller.ok("GET", FACTOR)
    assert (state["enabled"], state["recovery_codes_left"]) == (True, 10)


async def test_a_code_works_once_and_an_earlier_one_not_after_it(identity: Identity, app: App) -> None:
    caller, token = await challenge(identity)
    assert (await reply(caller, token, app.code(1))).status_code == 201
    caller, token = await challenge(identity)
    for code in (app.code(1), app.code()):
        answer = await reply(caller, token, code)
        assert (answer.status_code, answer.json()["code"]) == (401, "wrong_code")


async def test_a_challenge_works_once_for_a_while_and_for_a_few_tries(
    identity: Identity, app: App, database_url: str
) -> None:
    caller, token = await challenge(identity)
    await reply(caller, token, app.code())
    assert (await reply(caller, token, app.code(1))).json()["code"] == "invalid_challenge"

    caller, token = await challenge(identity)
    await execute(database_url, "UPDATE sign_in_challenges SET expires_at = now()")
    assert (await reply(caller, token, app.code(1))).json()["code"] == "invalid_challenge"

    caller, token = await challenge(identity)
    await execute(database_url, "UPDATE sign_in_challenges SET tries = $1", CHALLENGE_TRIES_MAX)
    assert (await reply(caller, token, app.code(1))).json()["code"] == "invalid_challenge"
    assert (await reply(caller, "ias-sic-invented", app.code(1))).json()["code"] == "invalid_challenge"


async def test_guessing_codes_locks_the_email_and_the_password_does_not_unlock_it(identity: Identity, app: App) -> None:
    for _ in range(FAILURES_FREE):
        caller, token = await challenge(identity)
        assert (await reply(caller, token, "000000")).status_code == 401
    assert (await reply(caller, token, app.code())).status_code == 429
    again = await caller.post(SESSIONS, json={"email": ADMIN_EMAIL, "password": ADMIN_PASSWORD})
    assert again.status_code == 429


async def test_no_link_in_a_mailbox_gives_back_the_guesses_of_codes(
    identity: Identity, app: App, mailbox: Mailbox
) -> None:
    caller, token = await challenge(identity)
    for _ in range(FAILURES_FREE):
        caller, token = await challenge(identity)
        assert (await reply(caller, token, "000000")).status_code == 401
    await caller.ok("POST", "/identity/v1/password-resets", {"email": ADMIN_EMAIL})
    new = {"token": await mailbox.token(), "password": "another one of theirs"}
    await caller.ok("POST", "/identity/v1/password-resets/complete", new)
    answer = await caller.post(SESSIONS, json={"email": ADMIN_EMAIL, "password": new["password"]})
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_attempts")


async def test_each_recovery_code_works_once_in_any_form(identity: Identity, admin: Caller, app: App) -> None:
    made = (await admin.ok("POST", f"{FACTOR}/recovery-codes", {"code": app.code()}))["recovery_codes"]
    assert len(set(made)) == 10
    for given, status in ((made[0].upper().replace("-", " "), 201), (made[0], 401), (made[1], 201)):
        caller, token = await challenge(identity)
        assert (await reply(caller, token, given)).status_code == status
    assert (await admin.ok("GET", FACTOR))["recovery_codes_left"] == 8


async def test_of_several_right_codes_for_one_challenge_one_opens_a_session(
    identity: Identity, admin: Caller, database_url: str
) -> None:
    enrolment = await admin.ok("POST", FACTOR, PROOF)
    confirmed = await admin.ok("POST", f"{FACTOR}/confirm", {"code": App(enrolment["secret"]).code()})
    codes = confirmed["recovery_codes"][:3]
    caller, token = await challenge(identity)

    answers = await asyncio.gather(*(reply(caller, token, code) for code in codes))

    assert sorted(answer.status_code for answer in answers) == [201, 401, 401]
    assert len(await fetch(database_url, "SELECT 1 FROM recovery_codes")) == 9


async def test_no_second_factor_is_set_up_with_a_password_that_is_being_replaced(
    admin: Caller, database_url: str
) -> None:
    async with connected(database_url) as connection:
        async with connection.transaction():  # as far as a reset is before it takes the second factor away
            await connection.execute("UPDATE users SET password_hash = 'another'")
            enrolling = asyncio.create_task(admin.post(FACTOR, json=PROOF))
            done, _ = await asyncio.wait([enrolling], timeout=0.5)
        assert not done
    refused = await enrolling
    assert (refused.status_code, refused.json()["code"]) == (403, "wrong_password")
    assert await fetch(database_url, "SELECT 1 FROM second_factors") == []


async def test_as_many_wrong_codes_as_there_are_connections_keep_nobody_waiting(admin: Caller) -> None:
    enrolment = await admin.ok("POST", FACTOR, PROOF)
    assert enrolment["secret"]
    answers = await asyncio.gather(*(admin.post(f"{FACTOR}/confirm", json={"code": "no code"}) for _ in range(8)))
    assert {answer.status_code for answer in answers} <= {403, 429}


async def test_a_second_factor_is_set_up_and_given_up_only_with_the_password_again(
    identity: Identity, admin: Caller
) -> None:
    for body in ({}, {"password": "wrong"}, {"password": None}):
        refused = await admin.post(FACTOR, json=body)
        assert (refused.status_code, refused.json()["code"]) == (403, "wrong_password")
    first = await admin.ok("POST", FACTOR, PROOF)
    assert first["uri"].startswith("otpauth://totp/IAS:root%40example.com?secret=")
    second = await admin.ok("POST", FACTOR, PROOF)
    # Until it is confirmed nothing asks for it, and only the newest can be.
    assert (await (await identity.anonymous()).post(SESSIONS, json={"email": ADMIN_EMAIL, **PROOF})).status_code == 201
    assert (await admin.post(f"{FACTOR}/confirm", json={"code": App(first["secret"]).code()})).status_code == 403
    app = App(second["secret"])
    await admin.ok("POST", f"{FACTOR}/confirm", {"code": app.code(-1)})
    assert (await admin.post(FACTOR, json=PROOF)).json()["code"] == "second_factor_exists"

    refusals: list[dict[str, Any]] = [{**PROOF, "code": "000000"}, {"password": "wrong", "code": app.code()}]
    for body in refusals:
        assert (await admin.post(f"{FACTOR}/disable", json=body)).status_code == 403
    await admin.ok("POST", f"{FACTOR}/disable", {**PROOF, "code": app.code()})
    assert (await admin.ok("GET", FACTOR))["enabled"] is False
    await identity.sign_in()


async def test_secrets_and_recovery_codes_cannot_be_read_from_the_tables(admin: Caller, database_url: str) -> None:
    enrolment = await admin.ok("POST", FACTOR, PROOF)
    codes = await admin.ok("POST", f"{FACTOR}/confirm", {"code": App(enrolment["secret"]).code()})
    stored = str(await fetch(database_url, "SELECT * FROM second_factors, recovery_codes, audit_log"))
    for secret in (enrolment["secret"], *codes["recovery_codes"]):
        assert secret not in stored

"""Changing a password, and getting one back by e-mail."""

import asyncio

import pytest

from ias.identity.core.password_changes import RESETS_MAX
from ias.identity.core.sign_in_attempts import FAILURES_FREE, RESETS_FREE_OF_ADDRESS
from tests.identity.database import connected, execute, fetch
from tests.identity.mailbox import Mailbox
from tests.identity.platform import ADMIN_EMAIL, ADMIN_PASSWORD, PASSWORD, Caller, Identity, eventually

CHANGE = "/identity/v1/me/password"
RESETS = "/identity/v1/password-resets"
COMPLETE = f"{RESETS}/complete"
SESSIONS = "/identity/v1/sessions"
NEW = "a new password of theirs"


async def status_of(identity: Identity, password: str) -> int:
    answer = await (await identity.anonymous()).post(SESSIONS, json={"email": ADMIN_EMAIL, "password": password})
    return answer.status_code


async def test_a_changed_password_signs_in_and_ends_every_other_session(identity: Identity, admin: Caller) -> None:
    elsewhere = await identity.sign_in()

    await admin.ok("PUT", CHANGE, {"current_password": ADMIN_PASSWORD, "new_password": NEW})

    assert (await elsewhere.get("/identity/v1/me")).status_code == 401
    assert (await admin.get("/identity/v1/me")).status_code == 200
    assert (await status_of(identity, ADMIN_PASSWORD), await status_of(identity, NEW)) == (401, 201)


async def test_a_password_is_not_changed_without_the_current_one_however_often_it_is_guessed(
    identity: Identity, admin: Caller
) -> None:
    for wrong, code in (({"new_password": "short"}, 422), ({"new_password": "x" * 73}, 422), ({"user_id": "x"}, 422)):
        body = {"current_password": ADMIN_PASSWORD, "new_password": NEW, **wrong}
        assert (await admin.put(CHANGE, json=body)).status_code == code
    same = await admin.put(CHANGE, json={"current_password": ADMIN_PASSWORD, "new_password": ADMIN_PASSWORD})
    assert same.status_code == 422
    for _ in range(FAILURES_FREE):
        guess = await admin.put(CHANGE, json={"current_password": "a guess", "new_password": NEW})
        assert (guess.status_code, guess.json()["code"]) == (403, "wrong_password")
    locked = await admin.put(CHANGE, json={"current_password": ADMIN_PASSWORD, "new_password": NEW})
    assert locked.status_code == 429


async def test_a_forgotten_password_is_set_by_the_link_once_and_everybody_else_is_out(
    identity: Identity, admin: Caller, mailbox: Mailbox, database_url: str
) -> None:
    caller = await identity.anonymous()
    assert (await caller.post(RESETS, json={"email": ADMIN_EMAIL.upper()})).status_code == 202
    token = await mailbox.token()
    assert (await mailbox.mail())["to"] == ADMIN_EMAIL

    answers = await asyncio.gather(
        *(caller.post(COMPLETE, json={"token": token, "password": password}) for password in (NEW, PASSWORD))
    )

    assert sorted(answer.status_code for answer in answers) == [204, 404]
    assert (await caller.post(COMPLETE, json={"token": token, "password": NEW})).status_code == 404
    assert (await admin.get("/identity/v1/me")).status_code == 401
    assert sorted([await status_of(identity, NEW), await status_of(identity, PASSWORD)]) == [201, 401]
    stored = str(await fetch(database_url, "SELECT * FROM users, audit_log"))
    assert token not in stored


async def test_no_session_of_the_old_password_begins_while_it_is_replaced(
    identity: Identity, admin: Caller, database_url: str
) -> None:
    body = {"email": ADMIN_EMAIL, "password": ADMIN_PASSWORD}
    caller = await identity.anonymous()
    async with connected(database_url) as connection:
        async with connection.transaction():  # as far as a reset is before it ends the sessions
            await connection.execute("UPDATE users SET password_hash = 'another'")
            signing_in = asyncio.create_task(caller.post("/identity/v1/sessions", json=body))
            done, _ = await asyncio.wait([signing_in], timeout=0.5)
        assert not done
    assert (await signing_in).status_code == 401


async def test_of_several_links_opened_at_once_one_sets_the_password_and_the_others_are_over(
    identity: Identity, admin: Caller, mailbox: Mailbox
) -> None:
    assert admin
    caller = await identity.anonymous()
    for _ in range(RESETS_MAX):
        await caller.post(RESETS, json={"email": ADMIN_EMAIL})
    tokens = [await mailbox.token(number) for number in range(RESETS_MAX)]
    passwords = [f"a new password from link {number}" for number in range(RESETS_MAX)]

    answers = await asyncio.gather(
        *(
            caller.post(COMPLETE, json={"token": token, "password": password})
            for token, password in zip(tokens, passwords, strict=True)
        )
    )

    assert sorted(answer.status_code for answer in answers) == [204] + [404] * (RESETS_MAX - 1)
    assert [await status_of(identity, password) for password in passwords].count(201) == 1


async def test_whether_anybody_has_an_email_shows_neither_in_the_answer_nor_in_the_work(
    identity: Identity, mailbox: Mailbox, database_url: str
) -> None:
    caller = await identity.anonymous()
    answers = [await caller.post(RESETS, json={"email": email}) for email in (ADMIN_EMAIL, "nobody@example.com")]
    assert answers[0].status_code == answers[1].status_code == 202
    assert answers[0].content == answers[1].content
    assert set(answers[0].headers) == set(answers[1].headers)
    for table, column in (("password_resets", "email"), ("audit_log", "after ->> 'email'")):
        query = f"SELECT {column} AS email FROM {table} WHERE {column} LIKE '%@example.com'"  # noqa: S608
        rows = await fetch(database_url, query)
        assert {ADMIN_EMAIL, "nobody@example.com"} <= {row["email"] for row in rows}

    async def all_sent() -> bool:
        return not await fetch(database_url, "SELECT 1 FROM outgoing_mails")

    await eventually(all_sent)
    assert [mail["to"] for mail in mailbox.received] == [ADMIN_EMAIL]


async def test_a_link_that_is_over_sets_nothing(
    identity: Identity, admin: Caller, mailbox: Mailbox, database_url: str
) -> None:
    caller = await identity.anonymous()
    await caller.post(RESETS, json={"email": ADMIN_EMAIL})
    token = await mailbox.token()
    tampered = token[:12] + ("A" if token[12] != "A" else "B") + token[13:]
    assert (await caller.post(COMPLETE, json={"token": tampered, "password": NEW})).status_code == 404
    await execute(database_url, "UPDATE password_resets SET expires_at = now()")
    assert (await caller.post(COMPLETE, json={"token": token, "password": NEW})).status_code == 404

    await caller.post(RESETS, json={"email": ADMIN_EMAIL})
    token = await mailbox.token(1)
    await admin.ok("PUT", CHANGE, {"current_password": ADMIN_PASSWORD, "new_password": NEW})
    after_a_change = await caller.post(COMPLETE, json={"token": token, "password": PASSWORD})
    assert (after_a_change.status_code, after_a_change.json()["code"]) == (404, "invalid_password_reset")


async def test_nobody_is_flooded_with_links(identity: Identity, mailbox: Mailbox, database_url: str) -> None:
    caller = await identity.anonymous()
    statuses = [
        (await caller.post(RESETS, json={"email": ADMIN_EMAIL})).status_code for _ in range(RESETS_FREE_OF_ADDRESS + 1)
    ]
    assert statuses == [202] * RESETS_FREE_OF_ADDRESS + [429]

    async def all_sent() -> bool:
        return not await fetch(database_url, "SELECT 1 FROM outgoing_mails")

    await eventually(all_sent)
    assert len(mailbox.received) == RESETS_MAX


@pytest.mark.parametrize(
    "email", ["no address", "x" * 320, "no\u0000body@example.com", "a@example.com\r\nBcc: b@example.com"]
)
async def test_what_is_no_email_gets_the_same_answer(identity: Identity, mailbox: Mailbox, email: str) -> None:
    answer = await (await identity.anonymous()).post(RESETS, json={"email": email})
    assert (answer.status_code, answer.content) == (202, b"null")
    assert mailbox.received == []

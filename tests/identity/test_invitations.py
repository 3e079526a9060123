"""The way into an org, and everything that is not one."""

import asyncio
from uuid import uuid4

import httpx
import pytest

from tests.identity.database import execute, fetch
from tests.identity.mailbox import Mailbox
from tests.identity.platform import PASSWORD, Caller, Identity, eventually, running, settings_for

ACCEPT = "/identity/v1/invitations/accept"
ACCEPT_NEW = "/identity/v1/invitations/accept-as-new-user"
LOOK_UP = "/identity/v1/invitations/look-up"


@pytest.fixture
async def org_id(admin: Caller) -> str:
    org = await admin.ok("POST", "/identity/v1/orgs", {"name": "acme"})
    return str(org["id"])


@pytest.fixture
def invitations(org_id: str) -> str:
    return f"/identity/v1/orgs/{org_id}/invitations"


async def join(caller: Caller, token: str, **more: str) -> httpx.Response:
    return await caller.post(ACCEPT_NEW, json={"token": token, "name": "Ann", "password": PASSWORD, **more})


async def test_an_invited_stranger_becomes_a_member_with_the_role_of_the_invitation(
    *, identity: Identity, admin: Caller, invitations: str, org_id: str, mailbox: Mailbox, database_url: str
) -> None:
    made = await admin.ok("POST", invitations, {"email": "Ann@Example.com", "role": "developer"})
    mail, token = await mailbox.mail(), await mailbox.token()
    stranger = await identity.anonymous()
    offer = await stranger.ok("POST", LOOK_UP, {"token": token})

    assert (mail["to"], mail["subject"]) == ("ann@example.com", "Invitation to acme")
    assert (offer["org_name"], offer["role"], offer["email"]) == ("acme", "developer", "ann@example.com")
    assert offer["has_account"] is False
    accepted = await join(stranger, token)
    assert (accepted.status_code, accepted.json()["status"]) == (200, "accepted")
    ann = await identity.sign_in("ann@example.com", PASSWORD)
    me = await ann.ok("GET", "/identity/v1/me")
    assert [(item["org_id"], item["role"]) for item in me["memberships"]] == [(org_id, "developer")]
    assert me["name"] == "Ann"
    [listed] = (await admin.ok("GET", invitations))["data"]
    assert (listed["id"], listed["accepted_by"]) == (made["id"], me["id"])
    actions = {row["action"] for row in await fetch(database_url, "SELECT action FROM audit_log")}
    assert {"invitation.create", "invitation.accept", "member.create", "user.create"} <= actions


async def test_a_user_who_exists_joins_only_as_themselves(
    *, identity: Identity, admin: Caller, invitations: str, mailbox: Mailbox, database_url: str
) -> None:
    second = await admin.ok("POST", "/identity/v1/orgs", {"name": "second"})
    ann, bob = [await identity.member(admin, second["id"], "viewer", f"{who}@example.com") for who in ("ann", "bob")]
    await execute(database_url, "UPDATE users SET email_confirmed_at = now()")
    await admin.ok("POST", invitations, {"email": "ann@example.com", "role": "admin"})
    token = await mailbox.token()

    assert (await ann.ok("POST", LOOK_UP, {"token": token}))["has_account"] is True
    as_bob = await bob.post(ACCEPT, json={"token": token})
    as_nobody = await (await identity.anonymous()).post(ACCEPT, json={"token": token})
    as_new = await join(bob, token)
    assert (as_bob.status_code, as_bob.json()["code"]) == (403, "invitation_of_another")
    assert as_nobody.status_code == 401
    assert (as_new.status_code, as_new.json()["code"]) == (409, "account_exists")

    await ann.ok("POST", ACCEPT, {"token": token})
    assert len((await ann.ok("GET", "/identity/v1/me"))["memberships"]) == 2


async def test_a_link_works_once_even_when_it_is_opened_twice_at_once(
    identity: Identity, admin: Caller, invitations: str, mailbox: Mailbox
) -> None:
    await admin.ok("POST", invitations, {"email": "ann@example.com", "role": "viewer"})
    token = await mailbox.token()
    caller = await identity.anonymous()
    answers = await asyncio.gather(*(join(caller, token) for _ in range(2)))
    won, lost = sorted(answer.status_code for answer in answers)
    assert (won, lost) in ((200, 404), (200, 409))
    again = await join(caller, token)
    assert (again.status_code, again.json()["code"]) == (404, "invalid_invitation")


async def test_a_link_that_is_no_longer_good_looks_like_one_that_never_was(
    *, identity: Identity, admin: Caller, invitations: str, org_id: str, mailbox: Mailbox, database_url: str
) -> None:
    caller = await identity.anonymous()
    never = await caller.post(LOOK_UP, json={"token": "ias-inv-invented"})
    assert (never.status_code, never.json()["code"]) == (404, "invalid_invitation")

    async def assert_void(token: str) -> None:
        looked = await caller.post(LOOK_UP, json={"token": token})
        assert looked.content == never.content
        assert (await join(caller, token)).status_code == 404
        assert (await admin.post(ACCEPT, json={"token": token})).status_code == 404

    made = await admin.ok("POST", invitations, {"email": "ann@example.com", "role": "viewer"})
    token = await mailbox.token()
    for at in (10, len(token) - 1):
        await assert_void(token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :])
    await assert_void(token.removeprefix("ias-inv-"))

    await execute(database_url, "UPDATE invitations SET expires_at = now()")
    await assert_void(token)
    await execute(database_url, "UPDATE invitations SET sent_at = now() - interval '2 minutes'")
    await admin.ok("POST", f"{invitations}/{made['id']}/resend")
    fresh = await mailbox.token(1)
    await assert_void(token)
    assert (await caller.post(LOOK_UP, json={"token": fresh})).status_code == 200
    await execute(database_url, "UPDATE orgs SET status = 'suspended', suspended_by = 'org'")
    await assert_void(fresh)
    await execute(database_url, "UPDATE orgs SET status = 'active', suspended_by = NULL")
    await admin.ok("DELETE", f"{invitations}/{made['id']}")
    await assert_void(fresh)
    resent = await admin.post(f"{invitations}/{made['id']}/resend")
    assert (resent.status_code, resent.json()["code"]) == (409, "not_pending")


async def test_nobody_invites_to_more_than_they_hold_and_only_whoever_may_invites_at_all(
    identity: Identity, admin: Caller, invitations: str, org_id: str
) -> None:
    roles = {role: await identity.member(admin, org_id, role) for role in ("admin", "developer", "owner")}
    body = {"email": "x@example.com", "role": "owner"}
    assert (await roles["admin"].post(invitations, json=body)).status_code == 403
    assert (await roles["developer"].post(invitations, json={**body, "role": "viewer"})).status_code == 403
    made = await roles["owner"].ok("POST", invitations, body)
    assert (await roles["admin"].post(f"{invitations}/{made['id']}/resend")).status_code == 403
    # Whoever was an owner a moment ago is not one now, whatever their token says.
    assert (await roles["owner"].post(invitations, json={**body, "platform_admin": True})).status_code == 422


async def test_other_orgs_see_and_withdraw_nothing(
    identity: Identity, admin: Caller, invitations: str, org_id: str
) -> None:
    made = await admin.ok("POST", invitations, {"email": "x@example.com", "role": "viewer"})
    other = await admin.ok("POST", "/identity/v1/orgs", {"name": "other"})
    theirs = await identity.member(admin, other["id"], "owner")
    for path in (invitations, f"/identity/v1/orgs/{other['id']}/invitations"):
        for answer in (
            await theirs.delete(f"{path}/{made['id']}"),
            await theirs.post(f"{path}/{made['id']}/resend"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert (await theirs.get(invitations)).status_code == 404


async def test_an_invitation_is_asked_for_once_and_sent_again_not_too_often(
    admin: Caller, invitations: str, database_url: str
) -> None:
    body = {"email": "ann@example.com", "role": "viewer"}
    made = await admin.ok("POST", invitations, body)
    again = await admin.post(invitations, json={**body, "email": "ANN@EXAMPLE.COM"})
    assert (again.status_code, again.json()["code"]) == (409, "already_invited")
    soon = await admin.post(f"{invitations}/{made['id']}/resend")
    assert soon.status_code == 429
    assert 1 <= int(soon.headers["retry-after"]) <= 61
    await admin.ok("DELETE", f"{invitations}/{made['id']}")
    assert (await admin.post(invitations, json=body)).status_code == 429
    await execute(database_url, "UPDATE invitations SET sent_at = now() - interval '2 minutes'")
    await admin.ok("POST", invitations, body)
    assert (await admin.post(invitations, json={**body, "email": "root@example.com"})).json()[
        "code"
    ] == "already_member"


async def test_an_org_floods_nobody_by_inviting_and_withdrawing(
    admin: Caller, invitations: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ias.identity.core.invitations.SENT_A_DAY_MAX", 3)
    for number in range(3):
        made = await admin.ok("POST", invitations, {"email": f"{number}@example.com", "role": "viewer"})
        await admin.ok("DELETE", f"{invitations}/{made['id']}")
    refused = await admin.post(invitations, json={"email": "next@example.com", "role": "viewer"})
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "3600")
    await execute(database_url, "UPDATE invitations SET sent_at = now() - interval '25 hours'")
    await admin.ok("POST", invitations, {"email": "next@example.com", "role": "viewer"})


async def test_whoever_was_put_out_has_no_way_back_by_an_invitation_of_their_own(
    *, identity: Identity, admin: Caller, invitations: str, org_id: str, mailbox: Mailbox, database_url: str
) -> None:
    deputy = await identity.member(admin, org_id, "admin", "deputy@example.com")
    made = await deputy.ok("POST", invitations, {"email": "ann@example.com", "role": "admin"})
    token, caller = await mailbox.token(), await identity.anonymous()
    member = f"/identity/v1/orgs/{org_id}/members/{deputy.user_id}"
    assert (await caller.post(LOOK_UP, json={"token": token})).status_code == 200
    for loss in ({"status": "suspended"}, {"status": "active", "role": "developer"}):
        await admin.ok("PATCH", member, loss)
        assert (await caller.post(LOOK_UP, json={"token": token})).status_code == 404, loss
    await admin.ok("DELETE", member)
    assert (await join(caller, token)).json()["code"] == "invalid_invitation"
    await execute(database_url, "UPDATE invitations SET sent_at = now() - interval '2 minutes'")

    resent = await admin.ok("POST", f"{invitations}/{made['id']}/resend")  # now somebody else vouches for it

    assert (resent["created_by"], resent["sent_by"]) == (deputy.user_id, admin.user_id)
    assert (await join(caller, await mailbox.token(1))).status_code == 200


async def test_no_name_can_write_a_header_of_the_mail(
    admin: Caller, invitations: str, org_id: str, mailbox: Mailbox, database_url: str
) -> None:
    refused = await admin.post("/identity/v1/orgs", json={"name": "acme\r\nBcc: thief@example.com"})
    assert refused.status_code == 422
    # Even if one got in by another way.
    await execute(database_url, "UPDATE orgs SET name = $1", "acme\r\nBcc: thief@example.com\r\n\r\nbody")
    await admin.ok("POST", invitations, {"email": "ann@example.com", "role": "viewer"})
    mail = await mailbox.mail()
    assert mail["bcc"] is None
    assert mail["subject"] == "Invitation to acme Bcc: thief@example.com body"
    for email in ("ann@example.com\r\nBcc: x@example.com", "ann@example.com,x@example.com", "<ann@example.com>"):
        assert (await admin.post(invitations, json={"email": email, "role": "viewer"})).status_code == 422


async def test_a_token_is_stored_as_its_digest_and_a_mail_sealed(
    admin: Caller, invitations: str, mailbox: Mailbox, database_url: str
) -> None:
    mailbox.refusals = 1
    await admin.ok("POST", invitations, {"email": "ann@example.com", "role": "viewer"})

    async def put_off() -> str:
        rows = await fetch(database_url, "SELECT * FROM outgoing_mails WHERE tries = 1")
        return str(rows) if rows and not mailbox.refusals else ""

    waiting = await eventually(put_off)
    await execute(database_url, "UPDATE outgoing_mails SET next_try_at = now()")
    token = await mailbox.token()
    stored = waiting + str(await fetch(database_url, "SELECT * FROM invitations, audit_log"))
    assert token not in stored
    assert "ann@example.com" not in waiting

    async def is_forgotten() -> bool:
        return not await fetch(database_url, "SELECT 1 FROM outgoing_mails")

    await eventually(is_forgotten)


async def test_without_a_mail_server_no_link_reaches_the_log_unless_that_is_asked_for(
    database_url: str, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for shown in (False, True):
        settings = settings_for(database_url, redis_url, mail_to_log=shown)
        async with running(settings) as identity:
            admin = await identity.sign_in()
            org = await admin.ok("POST", "/identity/v1/orgs", {"name": f"acme {shown}"})
            body = {"email": f"{uuid4()}@example.com", "role": "viewer"}
            await admin.ok("POST", f"/identity/v1/orgs/{org['id']}/invitations", body)
            seen = ""
            async with asyncio.timeout(10):
                while "no mail server" not in seen:
                    await asyncio.sleep(0.02)
                    seen += capsys.readouterr().out
            assert ("ias-inv-" in seen) == shown


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ann@example.com", "ANN@Example.COM"),
        ("ann@bücher.example", "ann@xn--bcher-kva.example"),
        ("ann@BÜCHER.example", "ann@bücher.example"),
        ("\uff41nn@example.com", "ann@example.com"),
    ],
)
async def test_one_email_in_two_spellings_is_one(admin: Caller, invitations: str, one: str, other: str) -> None:
    await admin.ok("POST", invitations, {"email": one, "role": "viewer"})
    again = await admin.post(invitations, json={"email": other, "role": "viewer"})
    assert again.json()["code"] == "already_invited"


async def test_letters_that_look_like_others_are_refused_or_shown_for_what_they_are(
    admin: Caller, invitations: str
) -> None:
    cyrillic_local = await admin.post(invitations, json={"email": "\u0430nn@example.com", "role": "viewer"})
    assert (cyrillic_local.status_code, cyrillic_local.json()["code"]) == (422, "invalid_email")
    domain = await admin.ok("POST", invitations, {"email": "ann@\u0435xample.com", "role": "viewer"})
    assert domain["email"].startswith("ann@xn--")

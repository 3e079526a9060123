"""An account that somebody made in another's name: whoever made it never gets what its e-mail's owner is given."""

import time
from dataclasses import dataclass

import pyotp
import pytest

from tests.identity.database import execute, fetch
from tests.identity.mailbox import Mailbox
from tests.identity.platform import PASSWORD, Caller, Identity

ORGS = "/identity/v1/orgs"
SESSIONS = "/identity/v1/sessions"
ACCEPT = "/identity/v1/invitations/accept"
ACCEPT_NEW = "/identity/v1/invitations/accept-as-new-user"
EMAIL = "ann@example.com"
OWN = "chosen by Ann herself"


@dataclass
class Trap:
    """An account in Ann's name, whose maker is signed in to it, knows its password and holds its second factor."""

    squatter: Caller
    totp: pyotp.TOTP

    async def is_open(self, identity: Identity) -> bool:
        """Whether what its maker knows still opens anything."""
        caller = await identity.anonymous()
        answer = await caller.post(SESSIONS, json={"email": EMAIL, "password": PASSWORD})
        return answer.status_code != 401 or (await self.squatter.get("/identity/v1/me")).status_code != 401


@pytest.fixture
async def trap(identity: Identity, admin: Caller) -> Trap:
    org = await admin.ok("POST", ORGS, {"name": "makers"})
    squatter = await identity.member(admin, org["id"], "viewer", EMAIL)
    enrolled = await squatter.ok("POST", "/identity/v1/me/second-factor", {"password": PASSWORD})
    totp = pyotp.TOTP(enrolled["secret"])
    await squatter.ok("POST", "/identity/v1/me/second-factor/confirm", {"code": totp.at(time.time() - 30)})
    return Trap(squatter, totp)


async def invite(admin: Caller) -> str:
    org = await admin.ok("POST", ORGS, {"name": "victims"})
    await admin.ok("POST", f"{ORGS}/{org['id']}/invitations", {"email": EMAIL, "role": "admin"})
    return str(org["id"])


async def test_nobody_but_the_platform_makes_accounts_or_puts_people_into_orgs(
    identity: Identity, admin: Caller
) -> None:
    org = await admin.ok("POST", ORGS, {"name": "acme"})
    other = await admin.ok("POST", ORGS, {"name": "other"})
    owner = await identity.member(admin, org["id"], "owner")
    known = await identity.member(admin, other["id"], "viewer")
    members = f"{ORGS}/{org['id']}/members"
    answers = [
        await owner.post(members, params=tried, json={"email": email, "role": "viewer", "password": PASSWORD})
        for tried in ({}, {"dry_run": "true"})
        for email in ("nobody@example.com", f"viewer-{other['id']}@example.com")
    ]
    # Nor do they learn who has an account.
    assert {answer.status_code for answer in answers} == {403}
    assert len({answer.content for answer in answers}) == 1
    sessions = await owner.get(f"{members}/{known.user_id}/sessions")
    assert sessions.status_code == 404


async def test_being_signed_in_to_an_account_is_no_proof_of_its_email(
    identity: Identity, admin: Caller, mailbox: Mailbox, trap: Trap
) -> None:
    """As when Ann was told the password by whoever made the account, and now follows a link while signed in."""
    await invite(admin)
    answer = await trap.squatter.post(ACCEPT, json={"token": await mailbox.token()})
    assert (answer.status_code, answer.json()["code"]) == (409, "email_not_confirmed")


async def test_the_link_of_an_invitation_hands_the_account_to_whoever_has_the_email(
    *, identity: Identity, admin: Caller, mailbox: Mailbox, trap: Trap, database_url: str
) -> None:
    waiting = await (await identity.anonymous()).ok("POST", SESSIONS, {"email": EMAIL, "password": PASSWORD})
    org_id = await invite(admin)
    token = await mailbox.token()
    ann = await identity.anonymous()
    offer = await ann.ok("POST", "/identity/v1/invitations/look-up", {"token": token})
    assert offer["has_account"] is False

    await ann.ok("POST", ACCEPT_NEW, {"token": token, "name": "Ann", "password": OWN})

    assert not await trap.is_open(identity)
    late = await ann.post(
        f"{SESSIONS}/second-factor", json={"challenge": waiting["challenge"], "code": trap.totp.now()}
    )
    assert late.status_code == 401
    ann = await identity.sign_in(EMAIL, OWN)
    me = await ann.ok("GET", "/identity/v1/me")
    assert (me["id"], me["name"]) == (trap.squatter.user_id, "Ann")
    assert org_id in {item["org_id"] for item in me["memberships"]}
    actions = {row["action"] for row in await fetch(database_url, "SELECT action FROM audit_log")}
    assert "user.confirm_email" in actions


async def test_a_reset_hands_the_account_over_with_nothing_left_of_what_was_set_up_in_it(
    identity: Identity, mailbox: Mailbox, trap: Trap
) -> None:
    ann = await identity.anonymous()
    await ann.ok("POST", "/identity/v1/password-resets", {"email": EMAIL})
    body = {"token": await mailbox.token(), "password": OWN}
    await ann.ok("POST", "/identity/v1/password-resets/complete", body)
    assert not await trap.is_open(identity)
    await identity.sign_in(EMAIL, OWN)  # nobody asks for a code


async def test_a_confirmed_account_is_nobodys_to_take_and_keeps_its_second_factor(
    *, identity: Identity, admin: Caller, mailbox: Mailbox, trap: Trap, database_url: str
) -> None:
    await execute(database_url, "UPDATE users SET email_confirmed_at = now()")
    await invite(admin)
    token = await mailbox.token()
    caller = await identity.anonymous()
    taken = await caller.post(ACCEPT_NEW, json={"token": token, "name": "Ann", "password": OWN})
    assert (taken.status_code, taken.json()["code"]) == (409, "account_exists")
    waiting = await caller.ok("POST", SESSIONS, {"email": EMAIL, "password": PASSWORD})
    await caller.ok("POST", "/identity/v1/password-resets", {"email": EMAIL})
    body = {"token": await mailbox.token(1), "password": OWN}
    await caller.ok("POST", "/identity/v1/password-resets/complete", body)
    # What began with the old password ends with it.
    code = {"challenge": waiting["challenge"], "code": trap.totp.now()}
    assert (await caller.post(f"{SESSIONS}/second-factor", json=code)).status_code == 401
    asked = await caller.post(SESSIONS, json={"email": EMAIL, "password": OWN})
    assert (asked.status_code, set(asked.json())) == (202, {"challenge", "expires_at"})


async def test_a_suspended_account_is_not_opened_by_an_invitation(
    identity: Identity, admin: Caller, mailbox: Mailbox, trap: Trap
) -> None:
    await admin.ok("PATCH", f"/identity/v1/users/{trap.squatter.user_id}", {"status": "suspended"})
    await invite(admin)
    body = {"token": await mailbox.token(), "name": "Ann", "password": OWN}
    answer = await (await identity.anonymous()).post(ACCEPT_NEW, json=body)
    assert (answer.status_code, answer.json()["code"]) == (409, "account_exists")

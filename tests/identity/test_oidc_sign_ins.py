"""Signing in with an identity provider: a real one, and every way in which one may lie."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc.jwk import ECKey

from tests.identity.database import connected, fetch
from tests.identity.oidc_provider import CLIENT_ID, CLIENT_SECRET, OidcProvider, back_with, open_provider
from tests.identity.platform import PASSWORD, Caller, Identity, running, settings_for

PROVIDERS = "/identity/v1/identity-providers"
CSRF = {"x-ias-csrf": "1"}


@pytest.fixture
async def provider() -> AsyncIterator[OidcProvider]:
    async with open_provider() as opened:
        yield opened


@pytest.fixture
async def provider_id(admin: Caller, provider: OidcProvider) -> str:
    return str((await add(admin, provider, creates_users=True)).json()["id"])


@pytest.fixture
async def browser(identity: Identity) -> Caller:
    caller = await identity.anonymous()
    caller.base_url = httpx.URL("https://ias.example")
    caller.headers.update(CSRF)
    return caller


async def add(admin: Caller, provider: OidcProvider, **more: Any) -> httpx.Response:
    body = {"name": "corp", "issuer": provider.issuer, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, **more}
    return await admin.post(PROVIDERS, json=body)


async def leave(browser: Caller, provider_id: str) -> dict[str, str]:
    """Go to the provider; what it sends back."""
    begun = await browser.post(f"/identity/v1/sign-in-providers/{provider_id}/begin")
    assert begun.status_code == 200, begun.text
    async with httpx.AsyncClient() as web:
        away = await web.get(begun.json()["authorization_url"])
    assert away.status_code == 307, away.text
    return back_with(away.headers["location"])


async def sign_in(browser: Caller, provider_id: str, **more: str) -> httpx.Response:
    return await browser.post("/identity/v1/sessions/oidc", json={**await leave(browser, provider_id), **more})


async def who(browser: Caller, signed: httpx.Response) -> dict[str, Any]:
    assert signed.status_code == 201, signed.text
    headers = {"authorization": f"Bearer {signed.json()['access_token']}"}
    me: dict[str, Any] = (await browser.get("/identity/v1/me", headers=headers)).json()
    return me


async def test_whoever_the_provider_vouches_for_signs_in_and_stays_the_same_user(
    browser: Caller, provider: OidcProvider, provider_id: str
) -> None:
    [choice] = (await browser.ok("GET", "/identity/v1/sign-in-providers"))["data"]
    assert choice == {"id": provider_id, "name": "corp"}
    first = await who(browser, await sign_in(browser, provider_id))
    assert (first["email"], first["name"]) == ("ann@example.com", "Ann")

    # Known by issuer and subject from now on, whatever becomes of the e-mail.
    provider.claims = {"sub": "ann", "email": "ann.new@example.com", "email_verified": True}
    again = await sign_in(browser, provider_id, transport="cookies")
    assert again.json()["access_token"] is None
    assert (await browser.ok("GET", "/identity/v1/me"))["id"] == first["id"]


async def test_a_user_who_exists_is_found_by_an_email_that_both_have_verified(
    identity: Identity, admin: Caller, browser: Caller, provider: OidcProvider, provider_id: str
) -> None:
    provider.claims["email"] = "ROOT@example.com"
    provider.claims_in_userinfo = True
    me = await who(browser, await sign_in(browser, provider_id))
    assert (me["id"], me["platform_admin"]) == (admin.user_id, True)
    await identity.sign_in()  # their password goes on


async def test_an_account_that_somebody_else_made_for_an_email_is_taken_from_them(
    identity: Identity, admin: Caller, browser: Caller, provider_id: str
) -> None:
    org = await admin.ok("POST", "/identity/v1/orgs", {"name": "acme"})
    squatter = await identity.member(admin, org["id"], "viewer", "ann@example.com")
    await squatter.ok("GET", "/identity/v1/me")

    me = await who(browser, await sign_in(browser, provider_id))

    assert me["id"] == squatter.user_id
    assert (await squatter.get("/identity/v1/me")).status_code == 401
    body = {"email": "ann@example.com", "password": PASSWORD}
    assert (await browser.post("/identity/v1/sessions", json=body)).status_code == 401


@pytest.mark.parametrize(
    "claims", [{"email_verified": False}, {"email_verified": None}, {"email": None}, {"email": "x"}]
)
async def test_an_email_that_the_provider_has_not_verified_opens_nothing(
    browser: Caller, provider: OidcProvider, provider_id: str, database_url: str, claims: dict[str, Any]
) -> None:
    provider.claims |= {"email": "root@example.com", **claims}
    assert (await sign_in(browser, provider_id)).status_code == 401
    assert await fetch(database_url, "SELECT 1 FROM external_identities") == []


@pytest.mark.parametrize(
    "lies",
    [
        {"iss": "https://elsewhere.example"},
        {"aud": "another client"},
        {"aud": [CLIENT_ID, "another client"]},
        {"aud": [CLIENT_ID, "another client"], "azp": "another client"},
        {"exp": 1_000_000_000},
        {"nonce": "of another sign-in"},
        {"nonce": None},
        {"sub": None},
    ],
)
async def test_a_token_that_is_not_for_this_very_sign_in_is_refused(
    browser: Caller, provider: OidcProvider, provider_id: str, lies: dict[str, Any]
) -> None:
    provider.lies = lies
    answer = await sign_in(browser, provider_id)
    assert (answer.status_code, answer.json()["code"]) == (401, "oidc_refused")


async def test_a_token_that_the_provider_did_not_sign_is_refused_and_a_new_key_of_its_own_is_found(
    browser: Caller, provider: OidcProvider, provider_id: str
) -> None:
    await who(browser, await sign_in(browser, provider_id))
    own = provider.key
    provider.key = ECKey.generate_key("P-256", {"kid": "one", "alg": "ES256"})
    assert (await sign_in(browser, provider_id)).status_code == 401
    provider.sign_with_published_key_as_mac()
    assert (await sign_in(browser, provider_id)).status_code == 401
    provider.key, provider.header = own, {"alg": "none"}
    assert (await sign_in(browser, provider_id)).status_code == 401


async def test_what_a_browser_brings_back_counts_once_and_only_from_the_browser_that_left(
    identity: Identity, browser: Caller, provider_id: str
) -> None:
    back = await leave(browser, provider_id)
    other = await identity.anonymous()
    other.headers.update(CSRF)
    stolen = await other.post("/identity/v1/sessions/oidc", json=back)
    assert (stolen.status_code, stolen.json()["code"]) == (401, "invalid_state")
    # Whoever tried has used it up.
    assert (await browser.post("/identity/v1/sessions/oidc", json=back)).status_code == 401

    back = await leave(browser, provider_id)
    other_end = "A" if back["state"][-1] != "A" else "B"
    tampered = await browser.post("/identity/v1/sessions/oidc", json={**back, "state": back["state"][:-1] + other_end})
    assert tampered.json()["code"] == "invalid_state"
    mixed_up = await browser.post("/identity/v1/sessions/oidc", json={**back, "iss": "https://elsewhere.example"})
    assert mixed_up.json()["code"] == "oidc_refused"
    foreign_page = await browser.post(
        "/identity/v1/sessions/oidc", json=back, headers={"origin": "https://evil.example"}
    )
    assert foreign_page.json()["code"] == "csrf"


async def test_a_code_stolen_on_its_way_back_is_worth_nothing_in_another_sign_in(
    identity: Identity, browser: Caller, provider_id: str
) -> None:
    victims = await leave(browser, provider_id)
    thief = await identity.anonymous()
    thief.base_url = httpx.URL("https://ias.example")
    thief.headers.update(CSRF)
    own = await leave(thief, provider_id)
    answer = await thief.post("/identity/v1/sessions/oidc", json={**own, "code": victims["code"]})
    assert (answer.status_code, answer.json()["code"]) == (401, "oidc_refused")


async def test_a_provider_is_believed_for_its_domains_and_lets_in_whom_it_may(
    admin: Caller, browser: Caller, provider: OidcProvider, provider_id: str
) -> None:
    path = f"{PROVIDERS}/{provider_id}"
    await admin.ok("PATCH", path, {"domains": ["Corp.Example"], "creates_users": False})
    answer = await sign_in(browser, provider_id)
    assert (answer.status_code, answer.json()["code"]) == (403, "domain_not_allowed")
    provider.claims["email"] = "ann@corp.example"
    assert (await sign_in(browser, provider_id)).json()["code"] == "no_account"
    org = await admin.ok("POST", "/identity/v1/orgs", {"name": "acme"})
    await admin.ok(
        "POST", f"/identity/v1/orgs/{org['id']}/invitations", {"email": "ann@corp.example", "role": "viewer"}
    )
    assert (await sign_in(browser, provider_id)).status_code == 201
    await admin.ok("PATCH", path, {"domains": ["other.example"]})
    assert (await sign_in(browser, provider_id)).json()["code"] == "domain_not_allowed"  # though it was once
    await admin.ok("PATCH", path, {"status": "disabled"})
    assert (await browser.post(f"/identity/v1/sign-in-providers/{provider_id}/begin")).status_code == 404
    assert (await browser.ok("GET", "/identity/v1/sign-in-providers"))["data"] == []


async def test_only_the_platform_keeps_providers_and_the_secret_is_never_shown(
    identity: Identity, admin: Caller, provider: OidcProvider, provider_id: str, database_url: str
) -> None:
    org = await admin.ok("POST", "/identity/v1/orgs", {"name": "acme"})
    owner = await identity.member(admin, org["id"], "owner")
    assert (await add(owner, provider, name="mine")).status_code == 403
    assert (await owner.get(PROVIDERS)).status_code == 403
    shown = str(await admin.ok("GET", PROVIDERS)) + str(await admin.ok("GET", f"{PROVIDERS}/{provider_id}"))
    stored = str(await fetch(database_url, "SELECT * FROM identity_providers, audit_log"))
    assert CLIENT_SECRET not in shown + stored
    assert (await add(admin, provider)).json()["code"] == "name_taken"
    for wrong in (
        {"domains": ["no domain"]},
        {"domains": ["a@b.example"]},
        {"domains": ["\x00"]},
        {"org_id": org["id"]},
    ):
        assert (await add(admin, provider, name="other", **wrong)).status_code == 422


@pytest.mark.parametrize(
    "issuer",
    [
        "http://corp.example",
        "https://169.254.169.254",
        "https://metadata.google.internal",
        "https://0x7f000001",
        "ftp://127.0.0.1",
        "https://user@corp.example:0",
        "nonsense",
        "https://[",
        "https://corp.example/?a=b",
        "http://127.0.0.1:9",
    ],
)
async def test_an_issuer_that_may_not_or_cannot_be_asked_is_refused(
    admin: Caller, provider: OidcProvider, issuer: str
) -> None:
    answer = await add(admin, provider, issuer=issuer)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_issuer"), answer.text


async def test_a_provider_cannot_send_the_platform_elsewhere(
    admin: Caller, provider: OidcProvider, database_url: str, redis_url: str
) -> None:
    for lies in (
        {"issuer": "https://elsewhere.example"},
        {"token_endpoint": "http://corp.example/token"},
        {"jwks_uri": "http://169.254.169.254/keys"},
    ):
        provider.configuration_lies = lies
        assert (await add(admin, provider)).json()["code"] == "invalid_issuer"
    provider.configuration_lies = {"jwks_uri": "https://169.254.169.254/keys"}
    made = await add(admin, provider)
    assert made.status_code == 201

    settings = settings_for(database_url, redis_url, identity_oidc_allow_loopback=False)
    async with running(settings) as closed:
        caller = await closed.sign_in()
        before = len(provider.asked)
        refused = await add(caller, provider, name="other")
        assert "this machine itself" in refused.json()["detail"]
        assert len(provider.asked) == before


async def test_keys_at_a_forbidden_address_are_not_fetched(
    admin: Caller, browser: Caller, provider: OidcProvider
) -> None:
    provider.configuration_lies = {"jwks_uri": "https://169.254.169.254/keys"}
    made = await add(admin, provider, creates_users=True)
    answer = await sign_in(browser, made.json()["id"])
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")


async def test_the_browser_is_sent_with_all_that_guards_the_way_back(browser: Caller, provider_id: str) -> None:
    begun = await browser.post(f"/identity/v1/sign-in-providers/{provider_id}/begin")
    asked = {name: values[0] for name, values in parse_qs(urlsplit(begun.json()["authorization_url"]).query).items()}
    assert asked["code_challenge_method"] == "S256"
    assert asked["redirect_uri"] == "http://127.0.0.1:8080/sign-in/callback"
    assert min(len(asked[name]) for name in ("state", "nonce", "code_challenge")) >= 43
    [cookie] = begun.headers.get_list("set-cookie")
    assert cookie.startswith("__Host-ias-sign-in=")
    assert {"HttpOnly", "Secure", "Path=/"} <= set(cookie.split("; "))
    assert browser.cookies["__Host-ias-sign-in"] not in begun.text


async def test_no_session_begins_while_its_user_is_being_suspended(
    browser: Caller, provider_id: str, database_url: str
) -> None:
    await sign_in(browser, provider_id)
    back = await leave(browser, provider_id)
    async with connected(database_url) as connection:
        async with connection.transaction():  # as far as a suspension is before it ends the sessions
            await connection.execute("UPDATE users SET status = 'suspended' WHERE email = 'ann@example.com'")
            signing_in = asyncio.create_task(browser.post("/identity/v1/sessions/oidc", json=back))
            done, _ = await asyncio.wait([signing_in], timeout=0.5)
        assert not done
    assert (await signing_in).status_code == 401

"""What is and what is not a valid token."""

import base64
import json
import re
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, OKPKey

import ias.identity.settings
from ias.identity.core.signing_keys import PUBLISHED_AFTER, PUBLISHED_BEFORE
from ias.identity.settings import IdentitySettings
from ias.kit.problems import UnauthenticatedError
from ias.kit.tokens import ALGORITHM, ISSUER, MANAGEMENT_AUDIENCE, TokenVerifier
from tests.identity.database import execute
from tests.identity.platform import BILLING_SECRET, GATEWAY_SECRET, Caller, Identity

JWKS = "/identity/v1/.well-known/jwks.json"


def claims(**more: Any) -> dict[str, Any]:
    now = int(time.time())
    base = {"iss": ISSUER, "aud": MANAGEMENT_AUDIENCE, "sub": str(uuid4()), "kind": "user", "jti": uuid4().hex}
    return {**base, "iat": now, "exp": now + 60, "platform_admin": True, **more}


def encode_part(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


async def published_key(identity: Identity) -> dict[str, Any]:
    document = await (await identity.anonymous()).ok("GET", JWKS)
    [key] = document["keys"]
    found: dict[str, Any] = key
    return found


async def status_with(identity: Identity, token: str) -> int:
    caller = await identity.anonymous()
    caller.headers["authorization"] = f"Bearer {token}"
    answer = await caller.get("/identity/v1/orgs")
    return answer.status_code


async def test_a_token_without_a_signature_is_refused(identity: Identity) -> None:
    key = await published_key(identity)
    for algorithm in ("none", "None", ALGORITHM):
        header = {"alg": algorithm, "kid": key["kid"], "typ": "JWT"}
        assert await status_with(identity, f"{encode_part(header)}.{encode_part(claims())}.") == 401


async def test_a_token_signed_by_another_key_is_refused_whatever_it_calls_itself(identity: Identity) -> None:
    kid = (await published_key(identity))["kid"]
    foreign = OKPKey.generate_key("Ed25519", private=True)
    for header in ({"alg": ALGORITHM, "kid": kid}, {"alg": ALGORITHM}, {"alg": ALGORITHM, "kid": "other"}):
        token = jwt.encode(header, claims(), foreign, algorithms=[ALGORITHM])
        assert await status_with(identity, token) == 401
    own_key = {"alg": ALGORITHM, "kid": kid, "jwk": foreign.as_dict(private=False)}
    first, second, third = jwt.encode({"alg": ALGORITHM}, claims(), foreign, algorithms=[ALGORITHM]).split(".")
    assert await status_with(identity, f"{encode_part(own_key)}.{second}.{third}") == 401
    assert first


async def test_the_public_key_is_no_hmac_secret(identity: Identity) -> None:
    key = await published_key(identity)
    secret = OctKey.import_key(base64.urlsafe_b64decode(key["x"] + "="))
    token = jwt.encode({"alg": "HS256", "kid": key["kid"]}, claims(), secret, algorithms=["HS256"])
    assert await status_with(identity, token) == 401


@pytest.mark.parametrize(
    "wrong", [{"aud": "identity"}, {"iss": "other"}, {"exp": int(time.time()) - 60}, {"kind": "king"}, {"sub": None}]
)
async def test_a_token_with_wrong_claims_is_refused_though_its_signature_is_right(
    identity: Identity, wrong: dict[str, Any]
) -> None:
    assert await status_with(identity, await sign(identity, claims())) == 200
    assert await status_with(identity, await sign(identity, claims(**wrong))) == 401


async def sign(identity: Identity, body: dict[str, Any]) -> str:
    keys = identity.app.state.parts.signing_keys
    async with keys._database.transaction() as connection:
        key = await keys.get_private_key(connection)
    return jwt.encode({"alg": ALGORITHM, "kid": key.kid}, body, key, algorithms=[ALGORITHM])


async def test_tokens_outlive_the_rotation_of_the_signing_key(identity: Identity, database_url: str) -> None:
    keys = identity.app.state.parts.signing_keys
    verifier = TokenVerifier(keys.get_jwks, audience=MANAGEMENT_AUDIENCE, refetch_after_s=0)
    old = await sign(identity, claims())
    await verifier.verify(old)

    await keys.rotate()

    assert len((await keys.get_jwks())["keys"]) == 2
    before = await sign(identity, claims())
    # Some minutes later: the new key signs, the old one does not.
    moved = "UPDATE signing_keys SET signs_from = signs_from - $1::interval, retired_at = retired_at - $1::interval"
    await execute(database_url, moved, PUBLISHED_BEFORE)
    after = await sign(identity, claims())
    assert kid_of(before) == kid_of(old) != kid_of(after)
    for token in (old, before, after):
        assert (await verifier.verify(token)).kind == "user"
    # An hour later: the old one is gone, and whatever it signed.
    await execute(database_url, moved, PUBLISHED_AFTER)
    fresh = TokenVerifier(keys.get_jwks, audience=MANAGEMENT_AUDIENCE)
    assert (await fresh.verify(after)).kind == "user"
    with pytest.raises(UnauthenticatedError):
        await fresh.verify(old)


async def test_a_key_that_has_done_its_time_is_followed_by_the_next(identity: Identity, database_url: str) -> None:
    keys = identity.app.state.parts.signing_keys
    await keys.ensure()
    assert len((await keys.get_jwks())["keys"]) == 1
    await execute(database_url, "UPDATE signing_keys SET signs_from = now() - interval '91 days'")
    for _ in range(2):
        await keys.ensure()
        assert len((await keys.get_jwks())["keys"]) == 2


def kid_of(token: str) -> str:
    header = json.loads(base64.urlsafe_b64decode(token.split(".", maxsplit=1)[0] + "=="))
    kid: str = header["kid"]
    return kid


async def test_the_published_key_set_holds_no_private_part(identity: Identity) -> None:
    key = await published_key(identity)
    assert "d" not in key
    assert (key["kty"], key["crv"], key["alg"], key["use"]) == ("OKP", "Ed25519", ALGORITHM, "sig")


async def test_a_service_proves_itself_with_its_secret(identity: Identity) -> None:
    caller = await identity.anonymous()
    body = {"client_id": "gateway", "client_secret": GATEWAY_SECRET, "audience": "identity"}

    token = await caller.ok("POST", "/internal/service-tokens", body)

    assert abs(token["expires_at_unix"] - time.time() - 600) < 60
    answers = [
        await caller.post("/internal/service-tokens", json={**body, **wrong})
        for wrong in ({"client_secret": "wrong"}, {"client_id": "stranger"})
    ]
    assert [answer.status_code for answer in answers] == [401, 401]
    assert answers[0].content == answers[1].content
    elsewhere = await caller.post("/internal/service-tokens", json={**body, "audience": MANAGEMENT_AUDIENCE})
    assert elsewhere.status_code == 422


async def test_a_service_gets_tokens_for_the_services_it_calls_and_no_others(identity: Identity) -> None:
    caller = await identity.anonymous()

    async def ask(client: str, secret: str, audience: str) -> tuple[int, str | None]:
        body = {"client_id": client, "client_secret": secret, "audience": audience}
        answer = await caller.post("/internal/service-tokens", json=body)
        return answer.status_code, answer.json().get("code")

    assert (await ask("gateway", GATEWAY_SECRET, "identity"))[0] == 200
    assert (await ask("billing", BILLING_SECRET, "analytics"))[0] == 200
    assert (await ask("billing", BILLING_SECRET, "registry"))[0] == 200
    for audience in ("analytics", "billing", "gateway", "registry", "gitops"):
        assert await ask("gateway", GATEWAY_SECRET, audience) == (403, "audience_not_allowed")
    assert await ask("billing", BILLING_SECRET, "identity") == (403, "audience_not_allowed")
    # Who has not the secret does not learn which audiences there are.
    assert await ask("gateway", BILLING_SECRET, "analytics") == (401, "invalid_client")


def test_services_may_call_by_default_whom_they_do_call() -> None:
    sources = Path(ias.identity.settings.__file__).parents[1]
    called: dict[str, set[str]] = {}
    for file in sources.rglob("*.py"):
        found = re.findall(r"_tokens\.get\([\"'](\w+)[\"']\)", file.read_text())
        if found:
            called.setdefault(file.relative_to(sources).parts[0], set()).update(found)

    default = IdentitySettings.model_fields["identity_service_audiences"].get_default(call_default_factory=True)

    assert called == {client: set(audiences) for client, audiences in default.items()}


async def test_a_service_token_opens_no_management_route(identity: Identity, admin: Caller) -> None:
    service = await identity.service()
    assert (await service.get("/identity/v1/orgs")).status_code == 401
    assert (await service.get("/identity/v1/me")).status_code == 401
    as_user = await sign(identity, claims(kind="service"))
    assert await status_with(identity, as_user) == 403

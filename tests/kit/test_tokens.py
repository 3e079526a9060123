"""Tokens are verified offline, and nothing but a good one passes."""

import base64
import json
import time
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import OctKey

from ias.contracts.permissions import Role
from ias.kit.problems import UnauthenticatedError, UnavailableError
from ias.kit.tokens import ALGORITHM, CLOCK_SKEW_S, ISSUER, MANAGEMENT_AUDIENCE, TokenVerifier
from tests.kit.token_issuer import TokenIssuer


class Jwks:
    """Publishes the keys of some issuers, or fails; counts how often it was asked."""

    def __init__(self, *issuers: TokenIssuer) -> None:
        self.issuers = list(issuers)
        self.failure: Exception | None = None
        self.document: Any = None
        self.asked = 0

    async def __call__(self) -> dict[str, Any]:
        self.asked += 1
        if self.failure:
            raise self.failure
        if self.document is not None:
            return self.document
        return {"keys": [issuer.key.as_dict(private=False) for issuer in self.issuers]}


def verifier_of(fetch: Any, *, refetch_after_s: float = 3600) -> TokenVerifier:
    return TokenVerifier(fetch, audience=MANAGEMENT_AUDIENCE, refetch_after_s=refetch_after_s)


def unsigned(header: dict[str, Any], claims: dict[str, Any]) -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (header, claims)]
    return ".".join([*parts, ""])


CLAIMS = {
    "iss": ISSUER,
    "aud": MANAGEMENT_AUDIENCE,
    "sub": "u",
    "kind": "user",
    "jti": "j",
    "exp": 2**33,
    "platform_admin": True,
}


async def test_a_good_token_says_what_was_signed() -> None:
    issuer = TokenIssuer()
    claims = await verifier_of(issuer.fetch_jwks).verify(
        issuer.sign(sub="u1", session_id="s1", grants=[["o", None, "owner"], ["o", "p", "viewer"]])
    )
    assert (claims.sub, claims.kind, claims.session_id, claims.platform_admin) == ("u1", "user", "s1", False)
    assert claims.grants == (("o", None, Role.OWNER), ("o", "p", Role.VIEWER))


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": int(time.time()) - CLOCK_SKEW_S - 5},
        {"exp": None},
        {"exp": "tomorrow"},
        {"nbf": int(time.time()) + 3600},
        {"iat": int(time.time()) + 3600},
        {"aud": "billing"},
        {"aud": None},
        {"aud": ["billing"]},
        {"iss": "somebody"},
        {"iss": None},
        {"sub": None},
        {"kind": "root"},
        {"jti": None},
        {"grants": [["org", None, "emperor"]]},
        {"grants": [["org", "owner"]]},
        {"grants": "all"},
        {"platform_admin": "perhaps"},
    ],
)
async def test_a_token_with_a_wrong_or_missing_claim_is_refused(claims: dict[str, Any]) -> None:
    issuer = TokenIssuer()
    with pytest.raises(UnauthenticatedError):
        await verifier_of(issuer.fetch_jwks).verify(issuer.sign(**claims))


async def test_an_unsigned_token_is_refused() -> None:
    issuer = TokenIssuer()
    for algorithm in ("none", "None", "NONE", ALGORITHM):
        with pytest.raises(UnauthenticatedError):
            await verifier_of(issuer.fetch_jwks).verify(unsigned({"alg": algorithm, "kid": "test"}, CLAIMS))


async def test_the_public_key_does_not_serve_as_a_shared_secret() -> None:
    issuer = TokenIssuer()
    public = issuer.key.as_pem(private=False)
    secret = OctKey.import_key(base64.urlsafe_b64encode(public).decode(), parameters={"kid": "test"})
    forged = jwt.encode({"alg": "HS256", "kid": "test"}, CLAIMS, secret)
    with pytest.raises(UnauthenticatedError):
        await verifier_of(issuer.fetch_jwks).verify(forged)


async def test_a_foreign_key_is_refused_whatever_it_calls_itself() -> None:
    issuer = TokenIssuer()
    for kid in ("test", "another"):
        with pytest.raises(UnauthenticatedError):
            await verifier_of(issuer.fetch_jwks).verify(TokenIssuer(kid).sign())


async def test_a_key_inside_the_token_is_not_trusted() -> None:
    issuer, foreign = TokenIssuer(), TokenIssuer("test")
    header = {"alg": ALGORITHM, "kid": "test", "jwk": foreign.key.as_dict(private=False)}
    forged = jwt.encode(header, CLAIMS, foreign.key, algorithms=[ALGORITHM])
    with pytest.raises(UnauthenticatedError):
        await verifier_of(issuer.fetch_jwks).verify(forged)


async def test_a_changed_token_is_refused() -> None:
    issuer = TokenIssuer()
    verifier = verifier_of(issuer.fetch_jwks)
    header, _, signature = issuer.sign().split(".")
    _, claims, _ = issuer.sign(platform_admin=True).split(".")
    with pytest.raises(UnauthenticatedError):
        await verifier.verify(f"{header}.{claims}.{signature}")


@given(st.text(max_size=80) | st.lists(st.text(alphabet="abcdeyJ0_-", max_size=30), max_size=5).map(".".join))
async def test_any_text_is_refused_and_nothing_worse(text: str) -> None:
    issuer = TokenIssuer()
    with pytest.raises(UnauthenticatedError):
        await verifier_of(issuer.fetch_jwks).verify(text)


async def test_keys_are_fetched_once() -> None:
    jwks = Jwks(TokenIssuer())
    verifier = verifier_of(jwks)
    for _ in range(3):
        await verifier.verify(jwks.issuers[0].sign())
    assert jwks.asked == 1


async def test_a_rotated_key_is_found_by_looking_once_more() -> None:
    jwks = Jwks(TokenIssuer("old"))
    verifier = verifier_of(jwks, refetch_after_s=0)
    old = jwks.issuers[0].sign()
    await verifier.verify(old)
    jwks.issuers.append(TokenIssuer("new"))
    await verifier.verify(jwks.issuers[1].sign())
    await verifier.verify(old)
    assert jwks.asked == 2


async def test_a_key_that_was_withdrawn_is_refused_after_the_next_look() -> None:
    jwks = Jwks(TokenIssuer("old"))
    verifier = verifier_of(jwks, refetch_after_s=0)
    old = jwks.issuers[0].sign()
    await verifier.verify(old)
    jwks.issuers = [TokenIssuer("new")]
    await verifier.verify(jwks.issuers[0].sign())
    with pytest.raises(UnauthenticatedError):
        await verifier.verify(old)


async def test_bad_tokens_do_not_make_us_ask_identity_again_and_again() -> None:
    jwks = Jwks(TokenIssuer())
    verifier = verifier_of(jwks)
    for _ in range(5):
        with pytest.raises(UnauthenticatedError):
            await verifier.verify("a.b.c")
    assert jwks.asked == 1


@pytest.mark.parametrize("failure", [httpx.ConnectError("away"), httpx.ReadTimeout("slow"), ValueError("not json")])
async def test_without_identity_the_keys_that_were_seen_still_verify(failure: Exception) -> None:
    jwks = Jwks(TokenIssuer())
    verifier = verifier_of(jwks, refetch_after_s=0)
    await verifier.verify(jwks.issuers[0].sign())
    jwks.failure = failure
    await verifier.verify(jwks.issuers[0].sign())
    with pytest.raises(UnauthenticatedError):
        await verifier.verify(TokenIssuer().sign())


async def test_without_identity_bad_tokens_do_not_ask_for_it_each_time() -> None:
    jwks = Jwks(TokenIssuer())
    verifier = verifier_of(jwks)
    await verifier.verify(jwks.issuers[0].sign())
    jwks.failure = httpx.ConnectError("away")
    verifier._asked_at = float("-inf")  # long ago
    for _ in range(3):
        with pytest.raises(UnauthenticatedError):
            await verifier.verify("a.b.c")
    assert jwks.asked == 2


async def test_without_identity_from_the_start_we_are_unavailable_until_it_is_there() -> None:
    jwks = Jwks(TokenIssuer())
    jwks.failure = httpx.ConnectError("away")
    verifier = verifier_of(jwks)
    with pytest.raises(UnavailableError):
        await verifier.verify(jwks.issuers[0].sign())
    jwks.failure = None
    await verifier.verify(jwks.issuers[0].sign())


@pytest.mark.parametrize("document", [{}, {"keys": None}, {"keys": [{"kty": "??"}]}, [], "jwks"])
async def test_a_document_that_is_no_key_set_counts_as_identity_away(document: Any) -> None:
    jwks = Jwks(TokenIssuer())
    jwks.document = document
    verifier = verifier_of(jwks, refetch_after_s=0)
    with pytest.raises(UnavailableError):
        await verifier.verify(jwks.issuers[0].sign())
    jwks.document = None
    await verifier.verify(jwks.issuers[0].sign())
    jwks.document = document
    await verifier.verify(jwks.issuers[0].sign())

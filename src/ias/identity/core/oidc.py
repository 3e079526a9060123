"""OpenID Connect as a client: the authorization code flow with PKCE, for any provider that publishes its configuration.

What a provider says of itself is fetched through the egress rules, kept for ten minutes, and believed only for its own issuer. An
ID token counts when the provider's published key signed it, for this client, for this very sign-in (nonce), and now.
"""

import hashlib
import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote_plus, urlencode, urlsplit

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from pydantic import BaseModel, ConfigDict, ValidationError

from ias.identity.core.users import check_email
from ias.kit.egress import EgressRefusedError
from ias.kit.problems import FieldError, InvalidError, UnauthenticatedError, UnavailableError

SCOPES = "openid email profile"
_ALGORITHMS = ["RS256", "PS256", "ES256", "ES384", "RS384", "RS512", "PS384", "PS512", "EdDSA", "Ed25519"]
"""Signatures by the provider's own key. Never `none`, and never a MAC, whose key the client itself holds."""
_FAILURES = (httpx.HTTPError, httpx.InvalidURL, EgressRefusedError, ValueError)
"""Of a request to a provider. The last: the answer is no JSON, or not of the form that it should have."""
_KEPT_S = 600.0
_REFETCH_AFTER_S = 10.0
_CLOCK_SKEW_S = 60


class OidcProvider(Protocol):
    """What must be known of a provider to sign in with it."""

    @property
    def issuer(self) -> str:
        """What it calls itself."""
        ...

    @property
    def client_id(self) -> str:
        """What it calls this platform."""
        ...


class _Configuration(BaseModel):
    """What a provider publishes of itself (OpenID Connect Discovery 1.0, section 3), as far as it is needed."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    token_endpoint_auth_methods_supported: list[str] = ["client_secret_basic"]
    authorization_response_iss_parameter_supported: bool = False


class _IdClaims(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    sub: str
    email: str | None = None
    email_verified: bool | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody, as a provider vouches for them."""

    subject: str
    email: str
    """Normalised, and verified by the provider."""
    name: str


class OidcClient:
    """Talks to providers. One for the process; `transport` decides where it may connect to."""

    def __init__(self, transport: httpx.AsyncBaseTransport, *, redirect_uri: str, timeout_s: float) -> None:
        self._transport = transport
        self._redirect_uri = redirect_uri
        self._timeout_s = timeout_s
        self._configurations: dict[str, tuple[float, _Configuration]] = {}
        self._keys: dict[str, tuple[float, KeySet]] = {}

    async def check_issuer(self, issuer: str) -> None:
        """Return when a provider answers for the issuer.

        Raises:
            InvalidError: it does not, or may not be asked.
        """
        try:
            await self._configuration(issuer)
        except (UnavailableError, UnauthenticatedError) as error:
            raise invalid_issuer(error.detail) from error

    async def make_authorization_url(
        self, provider: OidcProvider, *, state: str, nonce: str, code_verifier: str
    ) -> str:
        """Where the browser goes to sign in."""
        configuration = await self._configuration(provider.issuer)
        challenge = urlsafe_b64encode(hashlib.sha256(code_verifier.encode()).digest()).rstrip(b"=").decode()
        query = urlencode(
            {
                "response_type": "code",
                "client_id": provider.client_id,
                "redirect_uri": self._redirect_uri,
                "scope": SCOPES,
                "state": state,
                "nonce": nonce,
                "code_challenge": challenge,
                "code_challenge_method": "S256",
            }
        )
        endpoint = configuration.authorization_endpoint
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{query}"

    async def redeem(
        self,
        provider: OidcProvider,
        *,
        client_secret: str | None,
        code: str,
        code_verifier: str,
        nonce: str,
        response_issuer: str | None,
    ) -> Identity:
        """Who has signed in, for the code that their browser brought back.

        Raises:
            UnauthenticatedError: the provider does not vouch for it.
            UnavailableError: the provider cannot be asked.
        """
        configuration = await self._configuration(provider.issuer)
        if response_issuer is None:
            is_another = configuration.authorization_response_iss_parameter_supported
        else:
            is_another = response_issuer != configuration.issuer
        if is_another:  # RFC 9207: the code was made by another provider
            raise _refused("The answer is not from the provider that was asked.")
        proof = {"grant_type": "authorization_code", "code": code, "code_verifier": code_verifier}
        token = await self._ask_for_token(provider, client_secret, configuration, proof)
        claims = await self._verify(str(token.get("id_token") or ""), provider, configuration, nonce)
        if claims.email is None and configuration.userinfo_endpoint:
            access_token = str(token.get("access_token") or "")
            claims = await self._ask_userinfo(configuration.userinfo_endpoint, access_token, claims)
        return _identity_of(claims)

    async def _verify(
        self, id_token: str, provider: OidcProvider, configuration: _Configuration, nonce: str
    ) -> _IdClaims:
        registry = jwt.JWTClaimsRegistry(
            leeway=_CLOCK_SKEW_S,
            iss={"essential": True, "value": configuration.issuer},
            aud={"essential": True, "value": provider.client_id},
            exp={"essential": True},
            iat={"essential": True},
            sub={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        for refetch in (False, True):
            keys = await self._key_set(configuration, refetch=refetch)
            try:
                decoded = jwt.decode(id_token, keys, algorithms=_ALGORITHMS)
                registry.validate(decoded.claims)
                audiences = decoded.claims["aud"]
                is_shared = isinstance(audiences, list) and len(audiences) > 1
                if decoded.claims.get("azp", None if is_shared else provider.client_id) != provider.client_id:
                    raise _refused("The provider's token is for another client.")
                return _IdClaims.model_validate(decoded.claims)
            except (
                JoseError,
                ValidationError,
                ValueError,
            ) as error:  # ValueError: it is no token, or names no known key
                cause = error
        raise _refused("The provider's token is not valid.") from cause

    async def _ask_for_token(
        self,
        provider: OidcProvider,
        client_secret: str | None,
        configuration: _Configuration,
        proof: dict[str, str],
    ) -> dict[str, Any]:
        """What the token endpoint gives for a code (RFC 6749, sections 2.3.1 and 4.1.3)."""
        form = {**proof, "redirect_uri": self._redirect_uri}
        auth: httpx.Auth = httpx.Auth()  # none
        if client_secret is not None and "client_secret_basic" in configuration.token_endpoint_auth_methods_supported:
            auth = httpx.BasicAuth(quote_plus(provider.client_id), quote_plus(client_secret))
        else:
            form["client_id"] = provider.client_id
            if client_secret is not None:
                form["client_secret"] = client_secret
        try:
            async with self._client() as client:
                answer = await client.post(configuration.token_endpoint, data=form, auth=auth)
                if answer.status_code in (400, 401, 403):
                    raise _refused("The provider refused the code.")
                answer.raise_for_status()
                token = answer.json()
        except _FAILURES as error:
            raise _away(error) from error
        if not isinstance(token, dict):
            raise UnavailableError("The identity provider gave no token.")
        return token

    async def _ask_userinfo(self, url: str, access_token: str, claims: _IdClaims) -> _IdClaims:
        try:
            async with self._client() as client:
                answer = await client.get(url, headers={"authorization": f"Bearer {access_token}"})
                answer.raise_for_status()
                more = _IdClaims.model_validate(answer.json())
        except _FAILURES as error:
            raise _away(error) from error
        if more.sub != claims.sub:
            raise _refused("The provider says two things of who this is.")
        return more

    async def _configuration(self, issuer: str) -> _Configuration:
        kept_until, kept = self._configurations.get(issuer, (0.0, None))
        if kept is not None and time.monotonic() < kept_until:
            return kept
        document = await self._fetch(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        try:
            configuration = _Configuration.model_validate(document)
        except ValidationError as error:
            raise UnavailableError("The provider's configuration is not one.") from error
        if configuration.issuer != issuer:
            raise _refused("The provider calls itself by another issuer.")
        needed = (configuration.authorization_endpoint, configuration.token_endpoint, configuration.jwks_uri)
        if not all(is_encrypted_or_local(url) for url in needed):
            raise _refused("The provider's endpoints are not all https.")
        self._configurations[issuer] = (time.monotonic() + _KEPT_S, configuration)
        return configuration

    async def _key_set(self, configuration: _Configuration, *, refetch: bool) -> KeySet:
        fetched_at, kept = self._keys.get(configuration.issuer, (0.0, None))
        age_s = time.monotonic() - fetched_at
        if kept is not None and age_s < (_REFETCH_AFTER_S if refetch else _KEPT_S):
            return kept
        document = await self._fetch(configuration.jwks_uri)
        try:
            keys = KeySet.import_key_set(document)
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise UnavailableError("The provider's keys are none.") from error
        self._keys[configuration.issuer] = (time.monotonic(), keys)
        return keys

    async def _fetch(self, url: str) -> Any:
        try:
            async with self._client() as client:
                answer = await client.get(url)
                answer.raise_for_status()
                return answer.json()
        except _FAILURES as error:
            raise _away(error) from error

    def _client(self) -> httpx.AsyncClient:
        """A client for one exchange: no cookies are kept, no redirect is followed."""
        return httpx.AsyncClient(transport=_Shared(self._transport), timeout=self._timeout_s, follow_redirects=False)


class _Shared(httpx.AsyncBaseTransport):
    """The transport outlives each client."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._transport.handle_async_request(request)


def is_encrypted_or_local(url: str) -> bool:
    """Whether what is sent there can be read on no network. Whether this machine itself may be asked is the egress rules'."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost"))


def is_issuer(text: str) -> bool:
    """Whether a text has the form of an issuer: a URL without user, query and fragment (OpenID Connect Core, section 2)."""
    return text.isascii() and text.isprintable() and not set(text) & set(" @?#\\") and is_encrypted_or_local(text)


def invalid_issuer(detail: str) -> InvalidError:
    """What is wrong with an issuer that somebody named."""
    return InvalidError(detail, code="invalid_issuer", errors=[FieldError(pointer="/issuer", detail=detail)])


def _identity_of(claims: _IdClaims) -> Identity:
    if claims.email is None or claims.email_verified is not True:
        raise _refused("The provider has not verified the e-mail.", code="email_not_verified")
    try:
        email = check_email(claims.email)
    except InvalidError as error:
        raise _refused("The provider's e-mail is none.") from error
    return Identity(claims.sub, email, " ".join((claims.name or "").split())[:120])


def _refused(detail: str, *, code: str = "oidc_refused") -> UnauthenticatedError:
    return UnauthenticatedError(detail, code=code)


def _away(error: Exception) -> UnavailableError:
    """Its kind alone: the text may hold what the provider said."""
    detail = error.detail if isinstance(error, EgressRefusedError) else type(error).__name__
    return UnavailableError(f"The identity provider cannot be asked: {detail}")

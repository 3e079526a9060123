"""A real OpenID Connect provider of the test's own: HTTP, signatures, PKCE, and every way to misbehave."""

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from secrets import token_urlsafe
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlsplit

import uvicorn
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

CLIENT_ID, CLIENT_SECRET = "the-platform", "what only both know"


class OidcProvider:
    """One user at a time: `claims`. `lies` replace what the ID token says, `key` what it is signed with."""

    def __init__(self) -> None:
        self.issuer = ""
        self.key = ECKey.generate_key("P-256", {"kid": "one", "use": "sig", "alg": "ES256"})
        self.published = self.key
        self.claims: dict[str, Any] = {"sub": "ann", "email": "ann@example.com", "email_verified": True, "name": "Ann"}
        self.lies: dict[str, Any] = {}
        self.configuration_lies: dict[str, Any] = {}
        self.header = {"alg": "ES256", "kid": "one"}
        self.claims_in_userinfo = False
        self.codes: dict[str, dict[str, str]] = {}
        self.asked: list[str] = []

    def app(self) -> Starlette:
        """Its web server."""
        return Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self.configuration),
                Route("/authorize", self.authorize),
                Route("/token", self.token, methods=["POST"]),
                Route("/keys", self.keys),
                Route("/userinfo", self.userinfo),
                Route("/internal", self.keys),
            ]
        )

    async def configuration(self, _: Request) -> Response:
        self.asked.append("configuration")
        return JSONResponse(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
                "userinfo_endpoint": f"{self.issuer}/userinfo",
                "id_token_signing_alg_values_supported": ["ES256"],
            }
            | self.configuration_lies
        )

    async def authorize(self, request: Request) -> Response:
        """The user agrees at once."""
        asked = dict(request.query_params)
        assert (asked["response_type"], asked["client_id"], asked["scope"]) == (
            "code",
            CLIENT_ID,
            "openid email profile",
        )
        assert asked["code_challenge_method"] == "S256"
        code = token_urlsafe(16)
        self.codes[code] = asked
        return RedirectResponse(f"{asked['redirect_uri']}?code={code}&state={asked['state']}")

    async def token(self, request: Request) -> Response:
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        asked = self.codes.pop(form["code"], None)
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        given = base64.b64decode(credentials).decode() if scheme == "Basic" else ""
        client = tuple(unquote_plus(part) for part in given.split(":", 1))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        if (
            asked is None
            or client != (CLIENT_ID, CLIENT_SECRET)
            or asked["code_challenge"] != challenge.decode()
            or asked["redirect_uri"] != form["redirect_uri"]
        ):
            return JSONResponse({"error": "invalid_grant"}, status_code=400)
        now = int(time.time())
        base = {"iss": self.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 60, "nonce": asked["nonce"]}
        personal = {"sub": self.claims["sub"]} if self.claims_in_userinfo else self.claims
        claims = {name: value for name, value in (base | personal | self.lies).items() if value is not None}
        if self.header["alg"] == "none":
            parts = (json.dumps(part).encode() for part in (self.header, claims))
            id_token = ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), ""])
        else:
            id_token = jwt.encode(self.header, claims, self.key, algorithms=["ES256", "HS256"])
        return JSONResponse({"access_token": "opaque", "token_type": "Bearer", "id_token": id_token})

    async def keys(self, _: Request) -> Response:
        self.asked.append("keys")
        return JSONResponse({"keys": [self.published.as_dict(private=False)]})

    async def userinfo(self, request: Request) -> Response:
        assert request.headers["authorization"] == "Bearer opaque"
        return JSONResponse(self.claims)

    def sign_with_published_key_as_mac(self) -> None:
        """The oldest confusion: the public key as the secret of a MAC."""
        self.key = OctKey.import_key(json.dumps(self.published.as_dict(private=False)))  # type: ignore[assignment]
        self.header = {"alg": "HS256", "kid": "one"}


@asynccontextmanager
async def open_provider() -> AsyncIterator[OidcProvider]:
    """A provider on some port of this machine."""
    provider = OidcProvider()
    config = uvicorn.Config(provider.app(), host="127.0.0.1", port=0, log_config=None, lifespan="off", ws="none")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    provider.issuer = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield provider
    finally:
        server.should_exit = True
        await serving


def back_with(location: str) -> dict[str, str]:
    """What the browser is sent back with."""
    return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}

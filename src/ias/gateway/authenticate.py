"""Stage 1, authenticate: whose key is it?"""

import base64
import binascii
import hashlib
from functools import partial
from typing import NamedTuple

from ias.contracts.api_keys import has_valid_checksum
from ias.gateway.context import Gateway
from ias.gateway.errors import Refusal, mismatched_tenant, no_key, redis_away, unavailable, wrong_key
from ias.gateway.exchange import NEXT, WAIT, Exchange, Progress
from ias.gateway.identity_client import IdentityAwayError
from ias.gateway.redis_connection import RedisAwayError
from ias.gateway.snapshots import Principal


class Credentials(NamedTuple):
    """What a head says about who is calling."""

    key: bytes
    digest: bytes
    """Of the key: raw SHA-256."""
    organization: bytes | None
    project: bytes | None


def authenticate(exchange: Exchange, gateway: Gateway) -> Progress:
    """Set `exchange.principal`, from memory or by a look-up that the exchange waits for."""
    request = exchange.request
    credentials = request.notes.credentials
    if credentials is None:
        credentials = request.notes.credentials = _read_credentials(request.headers)
    principal = gateway.snapshots.find_principal(credentials.digest)
    if principal is not None:
        return _accept(exchange, principal, credentials)
    if not has_valid_checksum(credentials.key) or gateway.snapshots.is_known_as_unknown(credentials.digest):
        raise wrong_key(credentials.key)
    if not gateway.redis.is_ready:
        principal = gateway.snapshots.find_last_good(credentials.digest)
        if principal is not None:
            return _accept(exchange, principal, credentials)
    task = gateway.snapshots.resolve(credentials.digest)
    exchange.reply = task
    exchange.continuation = partial(_resolved, credentials)
    task.add_done_callback(lambda _: exchange.resume())
    return WAIT


def _resolved(credentials: Credentials, exchange: Exchange, gateway: Gateway) -> Progress:
    del gateway
    try:
        principal = exchange.reply.result()
    except RedisAwayError as error:
        raise redis_away() from error
    except IdentityAwayError as failure:
        raise unavailable("The service cannot check keys at the moment.", "identity_unavailable") from failure
    finally:
        exchange.reply = None
    if principal is None:
        raise wrong_key(credentials.key)
    return _accept(exchange, principal, credentials)


def _accept(exchange: Exchange, principal: Principal, credentials: Credentials) -> Progress:
    """The key's own state: revoked and expired keys are wrong keys; a suspended org's are genuine but refused."""
    if principal.is_revoked or principal.expires_at <= exchange.made_at:
        raise wrong_key(credentials.key)
    if not principal.is_usable:
        raise Refusal(403, "The key, its project or its organization is suspended.", code="account_suspended")
    if credentials.organization is not None and credentials.organization.decode("latin-1") != principal.key.org_id:
        raise mismatched_tenant("Organization")
    if credentials.project is not None and credentials.project.decode("latin-1") != principal.key.project_id:
        raise mismatched_tenant("Project")
    exchange.principal = principal
    return NEXT


def _read_credentials(headers: dict[bytes, bytes]) -> Credentials:
    key = read_key(headers)
    digest = hashlib.sha256(key).digest()
    return Credentials(key, digest, headers.get(b"openai-organization"), headers.get(b"openai-project"))


def read_key(headers: dict[bytes, bytes]) -> bytes:
    """The key a request carries: `Authorization: Bearer` or Basic (as its password), `api-key` or `x-api-key`.

    Raises:
        Refusal: 401, none of them is there.
    """
    authorization = headers.get(b"authorization")
    if authorization is not None:
        scheme, _, credentials = authorization.partition(b" ")
        credentials = credentials.strip()
        if scheme.lower() == b"bearer" and credentials:
            return credentials
        if scheme.lower() == b"basic" and (password := _basic_password(credentials)):
            return password
    key = headers.get(b"api-key") or headers.get(b"x-api-key")
    if key:
        return key.strip()
    raise no_key()


def _basic_password(credentials: bytes) -> bytes:
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except binascii.Error:
        return b""

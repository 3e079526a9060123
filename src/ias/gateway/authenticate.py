"""Stage 1, authenticate: whose key is it?"""

import base64
import binascii
import hashlib
import time
from functools import partial

from ias.contracts.api_keys import has_valid_checksum
from ias.gateway.context import Gateway
from ias.gateway.errors import Refusal, mismatched_tenant, no_key, redis_away, unavailable, wrong_key
from ias.gateway.exchange import NEXT, WAIT, Exchange, Progress
from ias.gateway.identity_client import IdentityAwayError
from ias.gateway.redis_connection import RedisAwayError
from ias.gateway.snapshots import Principal


def authenticate(exchange: Exchange, gateway: Gateway) -> Progress:
    """Set `exchange.principal`, from memory or by a look-up that the exchange waits for."""
    key = read_key(exchange.request.headers)
    digest = hashlib.sha256(key).digest()
    principal = gateway.snapshots.find_principal(digest)
    if principal is not None:
        return _accept(exchange, principal, key)
    if not has_valid_checksum(key) or gateway.snapshots.is_known_as_unknown(digest):
        raise wrong_key(key)
    task = gateway.snapshots.resolve(digest)
    exchange.reply = task
    exchange.continuation = partial(_resolved, key)
    task.add_done_callback(lambda _: exchange.resume())
    return WAIT


def _resolved(key: bytes, exchange: Exchange, gateway: Gateway) -> Progress:
    del gateway
    try:
        principal = exchange.reply.result()
    except RedisAwayError as error:
        raise redis_away() from error
    except IdentityAwayError as error:
        raise unavailable("The service cannot check keys at the moment.", "identity_unavailable") from error
    finally:
        exchange.reply = None
    if principal is None:
        raise wrong_key(key)
    return _accept(exchange, principal, key)


def _accept(exchange: Exchange, principal: Principal, key: bytes) -> Progress:
    """The key's own state: revoked and expired keys are wrong keys; a suspended org's are genuine but refused."""
    record = principal.key
    if record.status == "revoked" or principal.expires_at <= time.time():
        raise wrong_key(key)
    if not principal.is_usable:
        raise Refusal(403, "The key, its project or its organization is suspended.", code="account_suspended")
    headers = exchange.request.headers
    organization = headers.get(b"openai-organization")
    if organization is not None and organization.decode("latin-1") != record.org_id:
        raise mismatched_tenant("Organization")
    project = headers.get(b"openai-project")
    if project is not None and project.decode("latin-1") != record.project_id:
        raise mismatched_tenant("Project")
    exchange.principal = principal
    return NEXT


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

"""Service tokens: a process of the platform proves itself with its client secret and gets a token for one other service."""

import hashlib
import hmac
from collections.abc import Mapping

from ias.identity.core.access_tokens import AccessToken, AccessTokens
from ias.kit.database import Database
from ias.kit.problems import UnauthenticatedError

_NO_CLIENT = hashlib.sha256(b"no client has this secret").hexdigest()


class ServiceTokens:
    """Client credentials (RFC 6749, section 4.4) for the clients named in the settings."""

    def __init__(self, database: Database, access_tokens: AccessTokens, clients: Mapping[str, str]) -> None:
        self._database = database
        self._access_tokens = access_tokens
        self._clients = clients
        """The SHA-256 of each client's secret in hexadecimal, by client id."""

    async def issue(self, client_id: str, client_secret: str, audience: str) -> AccessToken:
        """A token for the service named `audience`.

        Raises:
            UnauthenticatedError: no such client, or another secret; the answer takes the same time.
        """
        expected = self._clients.get(client_id, _NO_CLIENT)
        given = hashlib.sha256(client_secret.encode()).hexdigest()
        if not hmac.compare_digest(given, expected.lower()) or client_id not in self._clients:
            raise UnauthenticatedError("The client id or its secret is not right.", code="invalid_client")
        async with self._database.transaction() as connection:
            return await self._access_tokens.issue_to_service(connection, client_id, audience)

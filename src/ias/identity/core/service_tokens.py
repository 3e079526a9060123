"""Service tokens: a process of the platform proves itself with its client secret and gets a token for one other service.

Which services a client may call is set per client, so that one that is taken over opens no more than it needs.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Literal

from ias.identity.core.access_tokens import AccessToken, AccessTokens
from ias.kit.database import Database
from ias.kit.problems import ForbiddenError, UnauthenticatedError

Audience = Literal["gateway", "identity", "registry", "billing", "analytics", "gitops"]
"""The services that a token may be for."""

_NO_CLIENT = hashlib.sha256(b"no client has this secret").hexdigest()


class ServiceTokens:
    """Client credentials (RFC 6749, section 4.4) for the clients named in the settings."""

    def __init__(
        self,
        database: Database,
        access_tokens: AccessTokens,
        clients: Mapping[str, str],
        audiences: Mapping[str, Sequence[Audience]],
    ) -> None:
        self._database = database
        self._access_tokens = access_tokens
        self._clients = clients
        """The SHA-256 of each client's secret in hexadecimal, by client id."""
        self._audiences = audiences
        """The services that each client may call; one that is not named may call none."""

    async def issue(self, client_id: str, client_secret: str, audience: Audience) -> AccessToken:
        """A token for the service named `audience`.

        Raises:
            UnauthenticatedError: no such client, or another secret; the answer takes the same time.
            ForbiddenError: the client has no business with that service.
        """
        expected = self._clients.get(client_id, _NO_CLIENT)
        given = hashlib.sha256(client_secret.encode()).hexdigest()
        if not hmac.compare_digest(given, expected.lower()) or client_id not in self._clients:
            raise UnauthenticatedError("The client id or its secret is not right.", code="invalid_client")
        if audience not in self._audiences.get(client_id, ()):
            raise ForbiddenError("The client may not call this service.", code="audience_not_allowed")
        async with self._database.transaction() as connection:
            return await self._access_tokens.issue_to_service(connection, client_id, audience)

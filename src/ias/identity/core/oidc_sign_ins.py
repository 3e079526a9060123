"""Signing in with an identity provider.

The browser is sent to the provider and comes back with a code. What it brings counts only together with the cookie that it was
given when it left, once. Whom the provider vouched for before is known by issuer and subject; whoever is new to it, by an e-mail
that the provider has verified.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.identity.core import users
from ias.identity.core.account_claims import claim_account
from ias.identity.core.audit_log import append
from ias.identity.core.identity_providers import IdentityProviders
from ias.identity.core.link_tokens import LinkTokens
from ias.identity.core.oidc import Identity, OidcClient
from ias.identity.core.session_revocations import SessionRevocations
from ias.identity.core.sessions import Sessions, SignedIn
from ias.identity.core.sign_in_attempts import SignInAttempts, address_counter
from ias.identity.store import identity_providers as store
from ias.identity.store import invitations as invitation_store
from ias.identity.store import users as user_store
from ias.identity.store.identity_providers import IdentityProvider, OidcSignIn
from ias.identity.store.users import User
from ias.kit.audit import Change, Origin
from ias.kit.database import Database
from ias.kit.problems import ConflictError, ForbiddenError, NotFoundError, UnauthenticatedError
from ias.kit.sealing import Sealer

LIFETIME = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Departure:
    """Where the browser goes, and the secret it must still hold when it comes back."""

    authorization_url: str
    browser_secret: str


class OidcSignIns:
    """Sending browsers away, and taking them back."""

    def __init__(
        self,
        database: Database,
        *,
        providers: IdentityProviders,
        oidc: OidcClient,
        sessions: Sessions,
        revocations: SessionRevocations,
        attempts: SignInAttempts,
        tokens: LinkTokens,
        sealer: Sealer,
    ) -> None:
        self._database = database
        self._providers = providers
        self._oidc = oidc
        self._sessions = sessions
        self._revocations = revocations
        self._attempts = attempts
        self._tokens = tokens
        self._sealer = sealer

    async def begin(self, provider_id: UUID) -> Departure:
        """Send a browser to the provider.

        Raises:
            NotFoundError: there is no such provider, or it is disabled.
            UnavailableError: it cannot be asked.
        """
        async with self._database.transaction() as connection:
            provider = await _find_enabled(connection, provider_id)
        state, state_digest = self._tokens.make()
        browser_secret, code_verifier, nonce = (secrets.token_urlsafe(48) for _ in range(3))
        url = await self._oidc.make_authorization_url(provider, state=state, nonce=nonce, code_verifier=code_verifier)
        now = datetime.now(UTC)
        async with self._database.transaction() as connection:
            await store.delete_oidc_sign_ins_expired_before(connection, now)
            await store.insert_oidc_sign_in(
                connection,
                {
                    "state_digest": state_digest,
                    "provider_id": provider_id,
                    "browser_digest": _digest(browser_secret),
                    "nonce": nonce,
                    "sealed_code_verifier": self._sealer.seal(code_verifier),
                    "created_at": now,
                    "expires_at": now + LIFETIME,
                },
            )
        return Departure(url, browser_secret)

    async def complete(
        self, state: str, code: str, *, browser_secret: str | None, response_issuer: str | None, origin: Origin
    ) -> SignedIn:
        """The session of whoever the provider vouches for.

        Raises:
            UnauthenticatedError: not the browser that left, not a sign-in that is under way, or the provider does not vouch.
            ForbiddenError: nobody here has the e-mail, or the provider is not believed for it.
            UnavailableError: the provider cannot be asked.
        """
        counter = address_counter(origin.source_ip)
        await self._attempts.refuse_if_locked([counter])
        try:
            provider, sign_in = await self._take(state, browser_secret)
            identity = await self._oidc.redeem(
                provider,
                client_secret=self._providers.open_client_secret(provider),
                code=code,
                code_verifier=self._sealer.open(sign_in.sealed_code_verifier),
                nonce=sign_in.nonce,
                response_issuer=response_issuer,
            )
        except UnauthenticatedError:
            await self._attempts.count([counter])
            raise
        try:
            return await self._enter(provider, identity, origin)
        except IntegrityError as error:  # two browsers of one new user at once
            raise ConflictError("Somebody was faster; sign in again.", code="try_again") from error

    async def _take(self, state: str, browser_secret: str | None) -> tuple[IdentityProvider, OidcSignIn]:
        digest = self._tokens.find_digest(state)
        async with self._database.transaction() as connection:
            sign_in = await store.take_oidc_sign_in(connection, digest, datetime.now(UTC)) if digest else None
            if sign_in is None or not hmac.compare_digest(sign_in.browser_digest, _digest(browser_secret or "")):
                sign_in = None
            provider = await store.find_provider(connection, sign_in.provider_id) if sign_in else None
        if sign_in is None or provider is None or provider.status != "enabled":
            raise UnauthenticatedError("This sign-in is over, or began elsewhere. Begin again.", code="invalid_state")
        return provider, sign_in

    async def _enter(self, provider: IdentityProvider, identity: Identity, origin: Origin) -> SignedIn:
        if provider.domains is not None and identity.email.partition("@")[2] not in provider.domains:
            raise ForbiddenError("This provider is not believed for e-mails of this domain.", code="domain_not_allowed")
        ended: list[UUID] = []
        async with self._database.transaction() as connection:
            user_id = await store.find_user_id(connection, provider.id, identity.subject)
            # Locked: whoever suspends the user, or takes their sessions, finds the one that begins here.
            user = await user_store.find_user(connection, user_id, lock=True) if user_id else None
            changes: list[Change] = []
            if user is None:
                user, ended, changes = await self._link(connection, provider, identity)
            if user.status != "active":
                raise UnauthenticatedError("This account is suspended.", code="account_suspended")
            signed_in = await self._sessions.open(connection, user, origin, method=f"oidc {provider.id}")
            if changes:
                await append(connection, origin.by_user(user.id), *changes)
        await self._revocations.push(session_ids=ended)
        return signed_in

    async def _link(
        self, connection: AsyncConnection, provider: IdentityProvider, identity: Identity
    ) -> tuple[User, list[UUID], list[Change]]:
        """The user of a verified e-mail, made if that is allowed, from now on known by issuer and subject."""
        user = await user_store.find_user_by_email(connection, identity.email, lock=True)
        ended: list[UUID] = []
        changes: list[Change] = []
        if user is None:
            is_invited = await invitation_store.is_invited(connection, identity.email, datetime.now(UTC))
            if not provider.creates_users and not is_invited:
                raise ForbiddenError("Nobody here has this e-mail. Ask for an invitation.", code="no_account")
            user = await users.insert_user(connection, identity.email, None, name=identity.name, email_confirmed=True)
            changes.append(Change("user.create", user.id, after=users.describe(user)))
        elif user.email_confirmed_at is None:
            # Somebody made this account, and perhaps not whoever has the e-mail.
            ended, claimed = await claim_account(connection, user, None)
            changes.append(claimed)
        await store.link_user(connection, provider.id, identity.subject, user.id)
        changes.append(Change("user.link", user.id, after={"identity_provider": str(provider.id)}))
        return user, ended, changes


async def _find_enabled(connection: AsyncConnection, provider_id: UUID) -> IdentityProvider:
    provider = await store.find_provider(connection, provider_id)
    if provider is None or provider.status != "enabled":
        raise NotFoundError
    return provider


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()

"""Ending access tokens before their time: of a session that ended, of a user from whom something was taken.

The rows decide. Redis is told right after the commit, and again every few seconds for as long as a token may live that should be
refused: whatever was missed (Redis away or emptied, this process killed) is made good by that.
"""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import structlog

from ias.identity.core.redis_records import AWAY
from ias.identity.store import sessions as session_store
from ias.identity.store import users as user_store
from ias.kit.database import Database
from ias.kit.revocations import Revocations
from ias.kit.tokens import CLOCK_SKEW_S
from ias.kit.writes import after_commit

log = structlog.get_logger("ias.identity.session_revocations")

_MARGIN_S = 60
"""A token is issued a moment after its version is read, and clocks differ."""


class SessionRevocations:
    """Tells Redis, and so every service."""

    def __init__(self, database: Database, revocations: Revocations, *, token_lifetime_s: int) -> None:
        self._database = database
        self._revocations = revocations
        self._lives_s = token_lifetime_s + CLOCK_SKEW_S + _MARGIN_S

    async def push(self, *, session_ids: Sequence[UUID] = (), user_ids: Sequence[UUID] = ()) -> None:
        """Let tokens of these sessions, and older tokens of these users, be refused once the change is committed.

        What cannot be told then is told later, by the worker.
        """
        if session_ids or user_ids:
            await after_commit(lambda: self._push(session_ids, user_ids))

    async def _push(self, session_ids: Sequence[UUID], user_ids: Sequence[UUID]) -> None:
        try:
            versions: dict[UUID, int] = {}
            if user_ids:
                async with self._database.transaction() as connection:
                    versions = await user_store.list_token_versions(connection, user_ids, raised_within=self._lives)
            await self._tell(session_ids, versions)
        except AWAY as error:
            log.warning("an ended session is not refused yet", error=type(error).__name__)

    async def push_recent(self) -> None:
        """Tell Redis of everything that may still matter. Raises one of `AWAY`."""
        async with self._database.transaction() as connection:
            session_ids = await session_store.list_sessions_revoked_within(connection, self._lives)
            versions = await user_store.list_token_versions(connection, None, raised_within=self._lives)
        if session_ids or versions:
            await self._tell(session_ids, versions)

    @property
    def _lives(self) -> timedelta:
        return timedelta(seconds=self._lives_s)

    async def _tell(self, session_ids: Sequence[UUID], versions: dict[UUID, int]) -> None:
        await self._revocations.tell(
            [str(session_id) for session_id in session_ids],
            {str(user_id): version for user_id, version in versions.items()},
            token_lifetime_s=self._lives_s,
        )

"""Accounts whose e-mail nobody had confirmed, and whoever then shows to have it.

An administrator makes such an account with a password of their choice. What they know of it, and whatever was set up in it since,
must open nothing once the e-mail's owner has come: else making an account in somebody's name would be a way to wait inside it.
"""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from ias.identity.core.audit_log import Change
from ias.identity.store import password_resets as reset_store
from ias.identity.store import second_factors as factor_store
from ias.identity.store import sessions as session_store
from ias.identity.store import sign_in_challenges as challenge_store
from ias.identity.store import users as user_store
from ias.identity.store.users import User


async def claim_account(
    connection: AsyncConnection, user: User, password_hash: str | None, *, name: str | None = None
) -> tuple[list[UUID], Change]:
    """Hand an unconfirmed account to whoever has just shown to have its e-mail, with a password of theirs or none.

    The sessions that this ends, which are to be pushed, and what the audit log is to say.
    """
    await user_store.set_password(connection, user.id, password_hash)
    await user_store.confirm_email(connection, user.id, name=name)
    await factor_store.delete_second_factor(connection, user.id)
    await challenge_store.delete_challenges_of(connection, user.id)
    await reset_store.delete_resets_of(connection, user.email)
    ended = await session_store.revoke_sessions_of_user(
        connection, user.id, "the e-mail was confirmed by whoever has it"
    )
    after = {"password": "replaced" if password_hash else None, "second_factor": None}
    return ended, Change("user.confirm_email", user.id, after=after)

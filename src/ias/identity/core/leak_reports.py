"""Leaked keys: whoever found a key in public says so with its text, and the key is revoked.

Nothing needs to be proved: the text is all that using the key takes. The answer is the same for a key that works, one that never
was and one that was revoked before, so that a report cannot be used to try keys. A report of an earlier text of a rotated key ends
that text alone, and of one that has ended nothing: it must be no way to stop somebody who rotated a leaked text away.
"""

import hmac
from collections.abc import Sequence

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.api_keys import digest_key, has_valid_checksum
from ias.identity.core.audit_log import Cause, Change, Origin, append
from ias.identity.core.mails import Mails
from ias.identity.core.redis_records import RedisRecords
from ias.identity.store import api_keys as store
from ias.identity.store import members as member_store
from ias.identity.store import users as user_store
from ias.identity.store.api_keys import ApiKey
from ias.kit.access import OrgScope
from ias.kit.database import Database
from ias.kit.mail import Mail, on_one_line
from ias.kit.tokens import Claims

log = structlog.get_logger("ias.identity.leak_reports")


class LeakReports:
    """Taking reports of keys that were found."""

    def __init__(self, database: Database, records: RedisRecords, mails: Mails) -> None:
        self._database = database
        self._records = records
        self._mails = mails

    async def report(self, texts: Sequence[str], source: str, origin: Origin) -> None:
        """Stop those of the texts that are ours and work. `source` says where they were found."""
        digests = sorted({digest_key(text) for text in texts if has_valid_checksum(text)})
        stopped = []
        for digest in digests:
            async with self._database.transaction() as connection:
                key = await store.find_key_of_digest(connection, digest)
                if key is None or key.status == "revoked":
                    continue
                change = await _stop(connection, key, digest, source)
                for email in await self._list_addressees(connection, key):
                    await self._mails.queue(connection, _tell(email, key, source, is_present=_is_present(key, digest)))
                await append(connection, Cause("system", None, origin.request_id, origin.source_ip), change)
            stopped.append(key.id)
            log.warning("a leaked key was stopped", key_id=str(key.id), org_id=str(key.org_id), action=change.action)
        if stopped:
            await self._records.push(api_key=stopped)

    async def _list_addressees(self, connection: AsyncConnection, key: ApiKey) -> set[str]:
        """Whose key it is, and the owners of its org."""
        owners = await member_store.list_owner_emails(connection, key.org_id)
        holder = await user_store.find_user(connection, key.user_id) if key.user_id else None
        return {*owners, *([holder.email] if holder else [])}


async def _stop(connection: AsyncConnection, key: ApiKey, digest: str, source: str) -> Change:
    """Revoke the key, or end that one of its earlier texts; what the audit log is to say."""
    scope = _scope_of(str(key.org_id))
    why = {"because": "reported as leaked", "found_at": source}
    if not _is_present(key, digest):
        await store.end_digest(connection, scope, key, digest)
        return Change("api_key.end_earlier_text", key.id, key.org_id, after=why)
    await store.revoke_api_key(connection, scope, key.id)
    return Change("api_key.revoke", key.id, key.org_id, {"status": key.status}, {"status": "revoked", **why})


def _is_present(key: ApiKey, digest: str) -> bool:
    """Whether the text is the one that the key has now, not an earlier one."""
    return hmac.compare_digest(key.digest, digest)


def _tell(email: str, key: ApiKey, source: str, *, is_present: bool) -> Mail:
    what = "The" if is_present else "An earlier text of the"
    done = "It was revoked. Issue a new one" if is_present else "That text was ended. Use the new one"
    text = (
        f'{what} API key "{on_one_line(key.name)}" ({key.redacted}) was found where others can read it:\n\n'
        f"    {on_one_line(source)}\n\n"
        f"{done} where it was in use, and look at what it was used for.\n"
    )
    return Mail(email, "A leaked API key was revoked" if is_present else "An earlier text of an API key leaked", text)


def _scope_of(org_id: str) -> OrgScope:
    """The scope of the key's own org, in which the platform acts."""
    return OrgScope(org_id, None, Claims(sub="ias", kind="service", aud="identity", exp=0, jti=""))

"""One management write is one transaction, from its first statement to its answer.

`kit.routing` begins a `Write` for each POST, PUT, PATCH and DELETE, and every `Database.transaction()` until the answer is rendered
joins it. Then it is committed, or rolled back as a whole: when anything was raised, and when it was only to be tried (`dry_run`).
So a dry run passes every check and constraint that the change itself would pass, and leaves nothing; an `If-Match` is compared
under the same locks as the change; and an answer that is kept for an `Idempotency-Key` is there exactly when its change is.

What `core` has to do with it:

- `note_change(...)` says what was done: a dry run answers with it.
- `check_version(...)`, right after a row was locked, refuses a change that is meant for another version of it.
- `after_commit(...)` is for everything that a rollback cannot undo: telling Redis, sending e-mail, asking another service.
- `regardless(...)` is for what must stay although the write fails: a wrong password is counted. It waits until the write has given
  its connection back: a request that held one while it waits for another could, with as many as it, wait for ever.

Outside of a management write (workers, consumers, `/internal`, signing in) transactions are what they look like, and an
`after_commit` and a `regardless` happen at once.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.events import AuditRecord
from ias.kit.etags import check_if_match
from ias.kit.idempotency import Answered, Claim, Replays
from ias.kit.problems import PreconditionFailedError

log = structlog.get_logger("ias.writes")

Effect = Callable[[], Awaitable[Mapping[str, str] | None]]
"""Something to do once the change is made. It may give headers that the answer shall carry."""

OpenConnection = Callable[[], AbstractAsyncContextManager[AsyncConnection]]

_CURRENT: ContextVar["Write | None"] = ContextVar("ias.write", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotedChange:
    """One thing that a write does. `before` and `after` hold JSON values and never a secret."""

    action: str
    target_kind: str
    target_id: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class Write:
    """A write on its way. One task uses it."""

    def __init__(self, *, in_steps: bool = False) -> None:
        self.in_steps = in_steps
        """Whether each transaction commits by itself: for a write that asks other services between them."""
        self.dry_run = False
        self.if_match: str | None = None
        self.replaying: tuple[Replays, Claim] | None = None
        self.changes: list[NotedChange] = []
        self._effects: list[Effect] = []
        self._regardless: list[Effect] = []
        self._version_was_checked = False
        self._connection: AsyncConnection | None = None
        self._closing = AsyncExitStack()
        self._is_over = False

    @property
    def takes_transactions(self) -> bool:
        """Whether transactions that begin now are part of it."""
        return not self._is_over and not self.in_steps

    @asynccontextmanager
    async def join(self, open_connection: OpenConnection) -> AsyncIterator[AsyncConnection]:
        """The write's connection, for a block that leaves nothing when it raises.

        Raises:
            AnsweredBeforeError: the idempotency key was used for the same request, and that was answered.
            ConflictError: it is being used right now.
            InvalidError: it was used for another request.
        """
        if self._connection is not None:
            async with self._connection.begin_nested():
                yield self._connection
            return
        async with AsyncExitStack() as unless_left_well:
            unless_left_well.push_async_callback(self._close)
            self._connection = await self._closing.enter_async_context(open_connection())
            if self.replaying and not self.dry_run:
                replays, claim = self.replaying
                await replays.claim(self._connection, claim)
            yield self._connection
            unless_left_well.pop_all()

    def check_version(self, version: int) -> None:
        """See `check_version` of the module."""
        self._version_was_checked = True
        check_if_match(self.if_match, version)

    async def after_commit(self, effect: Effect) -> None:
        """See `after_commit` of the module."""
        self._effects.append(effect)

    async def regardless(self, effect: Effect) -> None:
        """See `regardless` of the module."""
        self._regardless.append(effect)

    async def commit(self, answer: Answered) -> dict[str, str]:
        """Make the change, keep the answer for a replay, then do what had to wait for it; headers to add to the answer.

        Raises:
            PreconditionFailedError: there was an `If-Match`, and nothing looked at it.
        """
        if self.if_match is not None and not self._version_was_checked:
            raise PreconditionFailedError("What this changes has no versions to match.")
        if self._connection is not None:
            if self.replaying:
                replays, claim = self.replaying
                await replays.keep(self._connection, claim, answer)
            await self._connection.commit()
        await self.abandon()
        headers: dict[str, str] = {}
        for effect in self._effects:
            try:
                headers.update(await effect() or {})
            except Exception:  # the change is made, and its answer must say so whatever becomes of what follows it
                log.exception("what follows a change failed")
        return headers

    async def rehearse(self) -> list[NotedChange]:
        """Check what a commit would check, and roll back; what would have changed."""
        if self._connection is not None:
            await self._connection.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
        await self.abandon()
        return self.changes

    async def abandon(self) -> None:
        """Roll back what is not committed, then do what is to be done regardless. Raises what that raises."""
        self._is_over = True
        await self._close()
        effects, self._regardless = self._regardless, []
        for effect in effects:
            await effect()

    async def _close(self) -> None:
        self._connection = None
        await self._closing.aclose()


@asynccontextmanager
async def writing(*, in_steps: bool = False) -> AsyncIterator[Write]:
    """A write for a block. What the block did not commit is rolled back at its end."""
    write = Write(in_steps=in_steps)
    token = _CURRENT.set(write)
    try:
        yield write
    finally:
        _CURRENT.reset(token)
        await write.abandon()


def find_write() -> Write | None:
    """The write that is on its way in this task."""
    return _CURRENT.get()


def note_change(
    action: str,
    target_id: UUID | str,
    *,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> None:
    """Say what a write does. `action` is `noun.verb`; `before` and `after` hold JSON values and never a secret."""
    write = find_write()
    if write is not None:
        write.changes.append(
            NotedChange(
                action=action,
                target_kind=action.partition(".")[0],
                target_id=str(target_id),
                before=before,
                after=after,
            )
        )


def note_records(records: Iterable[AuditRecord]) -> None:
    """Say what a write does, as the audit log is told."""
    for record in records:
        note_change(record.action, record.target_id, before=record.before, after=record.after)


def check_version(version: int) -> None:
    """Compare the version of a row that is locked for a change with the `If-Match` that the change came with, if any.

    Raises:
        PreconditionFailedError: the change is meant for another version.
    """
    write = find_write()
    if write is not None:
        write.check_version(version)


def is_dry_run() -> bool:
    """Whether the write is only to be tried. For a write in steps, which has to see to it by itself."""
    write = find_write()
    return write is not None and write.dry_run


async def after_commit(effect: Effect) -> Mapping[str, str] | None:
    """Do something when the change is made, and not at all when it is not: never in a dry run. Within a write it waits (None).

    What it raises there is logged: the change is made. Elsewhere it happens now, and what it gives or raises is the caller's.
    """
    write = find_write()
    if write is None or not write.takes_transactions:
        return await effect()
    await write.after_commit(effect)
    return None


async def regardless(effect: Effect) -> None:
    """Do something whether or not the write that is on its way is made, in a dry run too: when it is over, and now without one."""
    write = find_write()
    if write is None or not write.takes_transactions:
        await effect()
    else:
        await write.regardless(effect)

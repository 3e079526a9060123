"""What was done or refused, by whom and through which request, in the one form that every service writes down.

A service makes records of its changes and writes them in the transaction of the change itself: identity into its hash chain,
the others into their outbox (`kit.outbox`), from where they reach identity over the bus.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, cast
from uuid import UUID

from ias.contracts.audit_chain import INTEGER_MAX
from ias.contracts.events import ActorKind, AuditRecord
from ias.contracts.ids import uuid7
from ias.kit.tokens import Claims

MASKED = "[masked]"
USER_AGENT_CHARACTERS_MAX = 200
ID_CHARACTERS_MAX = 500
VALUES_BYTES_MAX = 32_768
"""Of `before` and of `after` as JSON; of more, only the names of the fields are kept."""

_SECRET_WORDS = frozenset(
    {"password", "passphrase", "secret", "token", "credential", "credentials", "digest", "authorization", "otp", "totp"}
)
_SECRET_NAMES = frozenset({"key", "api_key", "private_key"})
_TELLS_NO_SECRET = ("_id", "_at", "_from", "_replaced", "_changed")
_DEPTH_MAX = 8


@dataclass(frozen=True, slots=True)
class Cause:
    """Who did something, and through which request."""

    actor_kind: ActorKind
    actor_id: str | None
    request_id: str | None = None
    source_ip: str | None = None
    user_agent: str | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """The request that something came by."""

    request_id: str
    source_ip: str | None
    user_agent: str | None

    def by(self, actor: Claims) -> Cause:
        """The cause, when the actor of a verified token asks."""
        return Cause(actor.kind, actor.sub, self.request_id, self.source_ip, self.user_agent)

    def by_user(self, user_id: UUID) -> Cause:
        """The cause, when somebody who is just signing in asks."""
        return Cause("user", str(user_id), self.request_id, self.source_ip, self.user_agent)

    def by_nobody(self) -> Cause:
        """The cause, when it is not known who asks."""
        return Cause("anonymous", None, self.request_id, self.source_ip, self.user_agent)


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that was done. `before` and `after` hold JSON values; what their names tell to be secret is masked."""

    action: str
    """`noun.verb`, e.g. `api_key.revoke`; the noun is the kind of the target."""
    target_id: UUID
    org_id: UUID | None = None
    """None for what belongs to the platform and to no org."""
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Denial:
    """Something that was refused."""

    action: str
    """The permission that was needed."""
    target: str
    """Method and path of the request."""
    reason: str
    """The `code` of the answer."""
    org_id: UUID | None
    cause: Cause


def make_records(service: str, cause: Cause, changes: Sequence[Change]) -> list[AuditRecord]:
    """The records of changes that were made together."""
    now = datetime.now(UTC)
    ids = sorted(uuid7() for _ in changes)  # of one millisecond their order is chance, and lists go by it
    return [
        AuditRecord(
            id=str(record_id),
            occurred_at=render_moment(now),
            service=service,
            org_id=str(change.org_id) if change.org_id else None,
            actor_kind=cause.actor_kind,
            actor_id=_text(cause.actor_id, ID_CHARACTERS_MAX),
            action=change.action,
            target_kind=change.action.partition(".")[0],
            target_id=str(change.target_id),
            outcome="done",
            reason=None,
            count=1,
            before=mask(change.before),
            after=mask(change.after),
            request_id=cause.request_id,
            source_ip=cause.source_ip,
            user_agent=_text(cause.user_agent, USER_AGENT_CHARACTERS_MAX),
        )
        for record_id, change in zip(ids, changes, strict=True)
    ]


def make_denial_record(service: str, denial: Denial, count: int) -> AuditRecord:
    """The record of equal denials, told by the first."""
    cause = denial.cause
    return AuditRecord(
        id=str(uuid7()),
        occurred_at=render_moment(datetime.now(UTC)),
        service=service,
        org_id=str(denial.org_id) if denial.org_id else None,
        actor_kind=cause.actor_kind,
        actor_id=_text(cause.actor_id, ID_CHARACTERS_MAX),
        action=denial.action,
        target_kind="route",
        target_id=_text(denial.target, ID_CHARACTERS_MAX) or "",
        outcome="denied",
        reason=denial.reason,
        count=count,
        before=None,
        after=None,
        request_id=cause.request_id,
        source_ip=cause.source_ip,
        user_agent=_text(cause.user_agent, USER_AGENT_CHARACTERS_MAX),
    )


def render_moment(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds: one spelling for one moment, so that hashes can be had again."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def mask(values: dict[str, Any] | None) -> dict[str, Any] | None:
    """Values as they may be written down: secrets masked, of bounded size, nothing that JSON or PostgreSQL cannot hold."""
    if values is None:
        return None
    masked = cast("dict[str, Any]", _plain(values, 0))
    if len(json.dumps(masked, ensure_ascii=False).encode()) > VALUES_BYTES_MAX:
        return {"too_large": True, "fields": [name[:100] for name in list(masked)[:100]]}
    return masked


def _plain(value: Any, depth: int) -> Any:
    if depth >= _DEPTH_MAX and isinstance(value, dict | list | tuple | set | frozenset):
        return "[too deep]"
    if isinstance(value, dict):
        return {
            _clean(str(name)): MASKED if _is_secret(str(name)) and held else _plain(held, depth + 1)
            for name, held in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(held, depth + 1) for held in value]
    return _plain_scalar(value)


def _plain_scalar(value: Any) -> Any:
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float) and math.isfinite(value) and abs(value) <= INTEGER_MAX:
        return value
    if isinstance(value, datetime):
        return render_moment(value)
    return _clean(str(value))


def _is_secret(name: str) -> bool:
    """Whether a field of this name holds a secret. `has_credential` and `credential_replaced` say only that there is one."""
    lowered = name.lower()
    if lowered.startswith("has_") or lowered.endswith(_TELLS_NO_SECRET):
        return False
    return lowered in _SECRET_NAMES or not _SECRET_WORDS.isdisjoint(lowered.split("_"))


def _text(text: str | None, characters_max: int) -> str | None:
    return _clean(text)[:characters_max] if text else None


def _clean(text: str) -> str:
    """The text without what PostgreSQL cannot store and JSON cannot carry: NUL and lone surrogates."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()

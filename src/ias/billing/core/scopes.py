"""What a ceiling applies to, as callers name it."""

from uuid import UUID

from ias.contracts.spending import ScopeKind
from ias.kit.access import OrgScope
from ias.kit.problems import FieldError, InvalidError


def check_scope_id(scope: OrgScope, kind: ScopeKind, scope_id: str) -> str:
    """The id as it is stored: a UUID in its usual spelling, or a model's public name.

    Raises:
        InvalidError: it has not the form of its kind, or is another org's.
    """
    if kind == "model":
        return scope_id
    try:
        known = str(UUID(scope_id))
    except ValueError:
        raise _problem(f"is not the id of a {kind.replace('_', ' ')} (a UUID)") from None
    if kind == "org" and known != scope.org_id:
        raise _problem("is not the org that this is for")
    return known


def _problem(what: str) -> InvalidError:
    return InvalidError(f"/scope/id {what}.", errors=[FieldError(pointer="/scope/id", detail=f"It {what}.")])

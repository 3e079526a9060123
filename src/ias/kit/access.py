"""What a verified caller may touch: `Access` to a permission, and from it the scope of one org.

`core` and `store` ask for an `OrgScope`. Only `Access` makes one, so no query can forget the tenant.
"""

from dataclasses import dataclass, field

from ias.contracts.permissions import Permission
from ias.kit.audit import Cause, Origin
from ias.kit.problems import ForbiddenError, NotFoundError
from ias.kit.tokens import Claims


@dataclass(frozen=True, slots=True)
class OrgScope:
    """Proof that the caller may act in an org (or in one of its projects only)."""

    org_id: str
    project_id: str | None
    """Set when the permission is held in this project alone."""
    actor: Claims
    cause: Cause = field(default=Cause("system", None))
    """The actor and the request, for the audit log; the platform itself, for a scope that no caller asked for."""


@dataclass(frozen=True, slots=True)
class Access:
    """A caller who holds the route's permission somewhere."""

    actor: Claims
    permission: Permission
    origin: Origin = field(default=Origin("", None, None))

    @property
    def cause(self) -> Cause:
        """The caller and the request, for the audit log."""
        return self.origin.by(self.actor)

    def in_org(self, org_id: str) -> OrgScope:
        """The scope of an org.

        Raises:
            NotFoundError: the caller has nothing to do with the org; it might as well not exist.
            ForbiddenError: the caller belongs to the org, but lacks the permission.
        """
        return self._scope(org_id, None)

    def in_project(self, org_id: str, project_id: str) -> OrgScope:
        """The scope of a project: by a role in the org, or by one in the project. Raises as `in_org` does."""
        return self._scope(org_id, project_id)

    def on_platform(self) -> Claims:
        """The caller, who is a platform admin.

        Raises:
            ForbiddenError: they are not.
        """
        if not self.actor.platform_admin:
            raise ForbiddenError(f"This needs `{self.permission}` on the platform.")
        return self.actor

    @property
    def org_ids(self) -> frozenset[str] | None:
        """The orgs in which the caller holds the permission org-wide; None for all of them."""
        if self.actor.platform_admin:
            return None
        return frozenset(
            org_id
            for org_id, project_id, role in self.actor.grants
            if project_id is None and self.actor.allows(role, self.permission)
        )

    def _scope(self, org_id: str, project_id: str | None) -> OrgScope:
        if self.actor.platform_admin:
            return OrgScope(org_id, None, self.actor, self.cause)
        grants = [grant for grant in self.actor.grants if grant[0] == org_id]
        if not grants:
            raise NotFoundError(org_id=org_id)
        for _, granted_project, role in grants:
            if granted_project in (None, project_id) and self.actor.allows(role, self.permission):
                return OrgScope(org_id, granted_project, self.actor, self.cause)
        raise ForbiddenError(f"This needs `{self.permission}`, which your role does not hold here.", org_id=org_id)

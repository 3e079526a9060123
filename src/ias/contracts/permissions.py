"""Who may do what: the one declarative table of permissions and roles that every service enforces."""

from enum import StrEnum


class Permission(StrEnum):
    """`noun:verb`. Each management route declares exactly one."""

    ORGS_CREATE = "orgs:create"
    ORGS_READ = "orgs:read"
    ORGS_WRITE = "orgs:write"
    ORGS_DELETE = "orgs:delete"
    PROJECTS_READ = "projects:read"
    PROJECTS_WRITE = "projects:write"
    API_KEYS_READ = "api_keys:read"
    API_KEYS_WRITE = "api_keys:write"
    MEMBERS_READ = "members:read"
    MEMBERS_WRITE = "members:write"
    USERS_READ = "users:read"
    USERS_WRITE = "users:write"
    AUDIT_READ = "audit:read"
    IDENTITY_PROVIDERS_READ = "identity_providers:read"
    IDENTITY_PROVIDERS_WRITE = "identity_providers:write"
    MODELS_READ = "models:read"
    MODELS_WRITE = "models:write"
    BACKENDS_READ = "backends:read"
    BACKENDS_WRITE = "backends:write"
    PRICES_READ = "prices:read"
    PRICES_WRITE = "prices:write"
    BUDGETS_READ = "budgets:read"
    BUDGETS_WRITE = "budgets:write"
    RATE_LIMITS_READ = "rate_limits:read"
    RATE_LIMITS_WRITE = "rate_limits:write"
    LEDGER_READ = "ledger:read"
    LEDGER_ADJUST = "ledger:adjust"
    USAGE_READ = "usage:read"
    DESIRED_STATE_READ = "desired_state:read"
    DESIRED_STATE_WRITE = "desired_state:write"


class Role(StrEnum):
    """A named set of permissions, held in an org or narrower in one project."""

    OWNER = "owner"
    ADMIN = "admin"
    DEVELOPER = "developer"
    FINANCE = "finance"
    VIEWER = "viewer"


PLATFORM_PERMISSIONS = frozenset(
    {
        Permission.ORGS_CREATE,
        Permission.USERS_READ,
        Permission.USERS_WRITE,
        Permission.IDENTITY_PROVIDERS_READ,
        Permission.IDENTITY_PROVIDERS_WRITE,
        Permission.MODELS_WRITE,
        Permission.BACKENDS_READ,
        Permission.BACKENDS_WRITE,
        Permission.PRICES_WRITE,
        Permission.LEDGER_ADJUST,
    }
)
"""What belongs to the platform and to no org: only a platform admin may do it."""

_EVERYONE = frozenset({Permission.ORGS_READ, Permission.PROJECTS_READ, Permission.MODELS_READ, Permission.PRICES_READ})
_VIEWER = _EVERYONE | {
    Permission.API_KEYS_READ,
    Permission.BUDGETS_READ,
    Permission.RATE_LIMITS_READ,
    Permission.USAGE_READ,
    Permission.MEMBERS_READ,
}
_DEVELOPER = _VIEWER | {Permission.API_KEYS_WRITE}
_FINANCE = _VIEWER | {Permission.LEDGER_READ, Permission.BUDGETS_WRITE}
_OWNER = frozenset(Permission) - PLATFORM_PERMISSIONS
_ADMIN = _OWNER - {Permission.ORGS_DELETE}

ROLE_PERMISSIONS: dict[Role, frozenset[Permission]] = {
    Role.OWNER: _OWNER,
    Role.ADMIN: _ADMIN,
    Role.DEVELOPER: _DEVELOPER,
    Role.FINANCE: _FINANCE,
    Role.VIEWER: _VIEWER,
}

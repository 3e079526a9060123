"""What routes are given: the parts of the service, and where a request came from."""

from dataclasses import dataclass
from typing import Annotated

from ias.identity.core.api_keys import ApiKeys
from ias.identity.core.audit_checkpoints import AuditCheckpoints
from ias.identity.core.audit_exports import AuditExports
from ias.identity.core.audit_log import AuditLog
from ias.identity.core.explanations import Explanations
from ias.identity.core.identity_providers import IdentityProviders
from ias.identity.core.invitations import Invitations
from ias.identity.core.leak_reports import LeakReports
from ias.identity.core.mails import Mails
from ias.identity.core.members import Members
from ias.identity.core.oidc_sign_ins import OidcSignIns
from ias.identity.core.orgs import Orgs
from ias.identity.core.password_changes import PasswordChanges
from ias.identity.core.project_members import ProjectMembers
from ias.identity.core.projects import Projects
from ias.identity.core.purges import Purges
from ias.identity.core.redis_records import RedisRecords
from ias.identity.core.roles import Roles
from ias.identity.core.second_factors import SecondFactors
from ias.identity.core.service_accounts import ServiceAccounts
from ias.identity.core.service_tokens import ServiceTokens
from ias.identity.core.session_revocations import SessionRevocations
from ias.identity.core.sessions import Sessions
from ias.identity.core.sign_ins import SignIns
from ias.identity.core.signing_keys import SigningKeys
from ias.identity.core.users import Users
from ias.kit.cursors import Cursors
from ias.kit.origins import OriginOf
from ias.kit.parts import part

__all__ = ["OriginOf", "Parts", "PartsOf"]


@dataclass(frozen=True, slots=True)
class Parts:
    """One of each, built by `wiring` into `app.state.parts`."""

    api_keys: ApiKeys
    audit_checkpoints: AuditCheckpoints
    audit_exports: AuditExports
    audit_log: AuditLog
    cursors: Cursors
    explanations: Explanations
    identity_providers: IdentityProviders
    invitations: Invitations
    leak_reports: LeakReports
    mails: Mails
    members: Members
    oidc_sign_ins: OidcSignIns
    orgs: Orgs
    password_changes: PasswordChanges
    project_members: ProjectMembers
    projects: Projects
    purges: Purges
    redis_records: RedisRecords
    second_factors: SecondFactors
    roles: Roles
    service_accounts: ServiceAccounts
    service_tokens: ServiceTokens
    session_revocations: SessionRevocations
    sessions: Sessions
    sign_ins: SignIns
    signing_keys: SigningKeys
    users: Users


PartsOf = Annotated[Parts, part("parts")]

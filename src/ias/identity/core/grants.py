"""What a user may do now: their roles in orgs that let them act from where they are."""

from sqlalchemy.ext.asyncio import AsyncConnection

from ias.identity.core.org_rules import is_address_allowed, is_domain_allowed
from ias.identity.store import members as store
from ias.identity.store.members import Grant
from ias.identity.store.users import User


async def list_usable_grants(connection: AsyncConnection, user: User, source_ip: str | None) -> list[Grant]:
    """What an access token will say: the user's grants, without those of orgs whose settings keep them out.

    An org keeps out whose e-mail is of none of its domains, and who asks from none of its networks. Such an org is to them like one
    they do not belong to, until a token is issued that finds them within.
    """
    grants = await store.list_grants(connection, user.id)
    rules = await store.list_sign_in_rules(connection, {org_id for org_id, _, _ in grants})
    kept_out = {
        rule.org_id
        for rule in rules
        if not is_domain_allowed(rule.sign_in_domains, user.email)
        or not is_address_allowed(rule.ip_networks, source_ip)
    }
    return [grant for grant in grants if grant[0] not in kept_out]

"""What an org's own settings allow: who may act in it, from where, and how long its keys may live."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address, ip_network

from ias.identity.store.orgs import Org
from ias.kit.problems import ConflictError, FieldError, InvalidError


def is_address_allowed(ip_networks: Sequence[str] | None, source_ip: str | None) -> bool:
    """Whether an address is within an org's networks. An address that is not known is in none."""
    if ip_networks is None:
        return True
    try:
        address = ip_address(source_ip or "")
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in ip_network(network) for network in ip_networks)


def is_domain_allowed(sign_in_domains: Sequence[str] | None, email: str) -> bool:
    """Whether a normalised e-mail's domain is one of an org's; a subdomain is another domain."""
    return sign_in_domains is None or email.rpartition("@")[2] in sign_in_domains


def check_not_locked_out(
    *, ip_networks: Sequence[str] | None, sign_in_domains: Sequence[str] | None, email: str, source_ip: str | None
) -> None:
    """Return when somebody could still act in the org under these settings.

    Raises:
        InvalidError: they could not, so they must not set them.
    """
    if not is_address_allowed(ip_networks, source_ip):
        detail = "These networks do not hold the address that you ask from; you would lock yourself out."
        raise InvalidError(detail, errors=[FieldError(pointer="/ip_networks", detail=detail)])
    if not is_domain_allowed(sign_in_domains, email):
        detail = "These domains do not hold your own e-mail's; you would lock yourself out."
        raise InvalidError(detail, errors=[FieldError(pointer="/sign_in_domains", detail=detail)])


def check_owners_stay(sign_in_domains: Sequence[str] | None, owner_emails: Sequence[str]) -> None:
    """Return when no owner is kept out by domains: an administrator has no such power over them.

    Raises:
        InvalidError: one would be.
    """
    if not all(is_domain_allowed(sign_in_domains, email) for email in owner_emails):
        detail = "These domains do not hold the e-mail of every owner, who would be locked out."
        raise InvalidError(detail, errors=[FieldError(pointer="/sign_in_domains", detail=detail)])


def check_may_join(org: Org, email: str) -> None:
    """Return when somebody with a normalised e-mail may belong to an org.

    Raises:
        InvalidError: its domain is none of the org's.
    """
    if not is_domain_allowed(org.sign_in_domains, email):
        detail = "The org takes e-mails of other domains only."
        raise InvalidError(detail, code="domain_not_allowed", errors=[FieldError(pointer="/email", detail=detail)])


def limit_expiry(org: Org, wanted: datetime | None, now: datetime) -> datetime | None:
    """When a new key shall expire: as wanted, or at the end of the org's longest lifetime where nothing is.

    Raises:
        InvalidError: it would be born expired, or live longer than the org lets its keys.
    """
    if wanted is not None and wanted <= now:
        raise _wrong_expiry("The key would be expired from the start.")
    if org.key_lifetime_days_max is None:
        return wanted
    latest = now + timedelta(days=org.key_lifetime_days_max)
    if wanted is not None and wanted > latest:
        raise _wrong_expiry(f"The org's keys live {org.key_lifetime_days_max} days at most.")
    return wanted or latest


def check_not_deleted(status: str, what: str) -> None:
    """Return when an org or a project was not deleted.

    Raises:
        ConflictError: it was, and must be restored first.
    """
    if status == "deleted":
        raise ConflictError(f"The {what} is deleted; restore it first.", code=f"{what}_deleted")


def _wrong_expiry(detail: str) -> InvalidError:
    return InvalidError(detail, errors=[FieldError(pointer="/expires_at", detail=detail)])

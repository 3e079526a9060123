"""The fields that several bodies share."""

import re
import unicodedata
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Annotated

from fastapi import Response
from pydantic import AfterValidator, AwareDatetime, Field

from ias.contracts.api_keys import KeyScope
from ias.identity.core.redis_records import IN_FORCE_HEADER
from ias.identity.core.users import normalize_email

IN_FORCE = {
    IN_FORCE_HEADER: {
        "description": "`true` when every gateway has been told; `false` when it will be, as soon as Redis answers.",
        "schema": {"type": "string", "enum": ["true", "false"]},
    }
}
"""The OpenAPI description of the header that `say_in_force` sets."""


_NOT_IN_A_LINE = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories: control characters, surrogates, line and paragraph separators."""


def single_line(text: str) -> str:
    """The text, which is one line. Raises `ValueError` when it holds what does not show in one."""
    if any(unicodedata.category(character) in _NOT_IN_A_LINE for character in text):
        raise ValueError("control characters are not allowed")
    return text


def _network(text: str) -> str:
    return str(ip_network(text, strict=False))


Name = Annotated[str, Field(min_length=1, max_length=120), AfterValidator(single_line)]
"""What somebody calls something."""

ModelName = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(single_line)]
ModelNames = Annotated[
    list[ModelName] | None,
    Field(max_length=1000, description="Public names of the models that may be used; null is all."),
]

Scopes = Annotated[
    list[KeyScope] | None,
    Field(max_length=50, description="Endpoints of the inference API that the key may call; null is all."),
]

IpNetworks = Annotated[
    list[Annotated[str, Field(max_length=50), AfterValidator(_network)]] | None,
    Field(max_length=200, description="CIDR networks or addresses the key may be used from; null is all."),
]


def _domain(text: str) -> str:
    domain = normalize_email(f"x@{text}").rpartition("@")[2]
    if "@" in text or not re.fullmatch(r"[^@\s.]+(\.[^@\s.]+)*", domain):
        raise ValueError("this is not a domain")
    return domain


Domains = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=253), AfterValidator(_domain)]] | None,
    Field(
        min_length=1,
        max_length=100,
        description="Domains of e-mails whose users may act in the org; a subdomain is another one; null is all.",
    ),
]

OrgNetworks = Annotated[
    list[Annotated[str, Field(max_length=50), AfterValidator(_network)]] | None,
    Field(
        min_length=1,
        max_length=200,
        description="CIDR networks or addresses that the org's keys and members may be used from; null is all.",
    ),
]

ExpiryTime = Annotated[
    AwareDatetime | None,
    Field(lt=datetime(9999, 1, 1, tzinfo=UTC), description="RFC 3339, with a time zone; null never expires."),
]


def say_in_force(response: Response, in_force: bool) -> None:
    """Tell the caller whether the change is in force at every gateway, or about to be."""
    response.headers[IN_FORCE_HEADER] = "true" if in_force else "false"

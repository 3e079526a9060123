"""The one spelling of an e-mail."""

import pytest

from ias.identity.core.users import check_email, normalize_email
from ias.kit.problems import InvalidError
from ias.local.generated_secrets import ADMIN_EMAIL


@pytest.mark.parametrize(
    "email", [ADMIN_EMAIL, "root@localhost", "ann@corp.internal", "a.b+c@example.com", "ann@xn--bcher-kva.example"]
)
def test_an_email_of_a_private_network_is_one_too_and_stays_as_it_is(email: str) -> None:
    assert check_email(email) == normalize_email(email) == email


@pytest.mark.parametrize(
    "text",
    [
        *("", "ann", "@example.com", "ann@", "ann@.com", "ann@a..b", "ann@example.com.", "ann@[127.0.0.1]", "a b@c.d"),
        *("<ann@example.com>", "ann@exa mple.com", "ann@a@b.c", "\u0430nn@example.com", "x" * 65 + "@example.com"),
        *("ann@example.com\r\nBcc: x@y.z", "ann@-a.com", "ann\x00@example.com", "ann@" + "a." * 130 + "com"),
    ],
)
def test_what_is_no_email_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        check_email(text)

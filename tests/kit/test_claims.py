"""What a token's roles hold."""

from ias.contracts.permissions import Permission
from ias.kit.tokens import Claims


def claims(**more: object) -> Claims:
    return Claims.model_validate({"sub": "u", "kind": "user", "aud": "a", "exp": 1, "jti": "j", **more})


def test_an_orgs_own_role_holds_what_the_token_says_but_never_what_is_the_platforms() -> None:
    actor = claims(custom_roles={"r": ["orgs:read", "orgs:create", "not:known"]})
    assert actor.allows("r", Permission.ORGS_READ)
    assert not actor.allows("r", Permission.ORGS_CREATE)
    assert not actor.allows("r", Permission.ORGS_WRITE)


def test_a_token_cannot_say_what_a_built_in_role_holds_and_an_unknown_role_holds_nothing() -> None:
    actor = claims(custom_roles={"viewer": ["orgs:delete"]})
    assert not actor.allows("viewer", Permission.ORGS_DELETE)
    assert not actor.allows("of a later version", Permission.ORGS_READ)

"""The caller's second factor."""

from datetime import datetime
from typing import Annotated

from pydantic import ConfigDict, Field, SecretStr

from ias.identity.api.parts import OriginOf, PartsOf
from ias.kit.authorization import signed_in
from ias.kit.routing import Router
from ias.kit.tokens import Claims
from ias.kit.web import Answer, Body

router = Router(prefix="/identity/v1/me/second-factor", tags=["second factor"])

Code = Annotated[SecretStr, Field(min_length=1, max_length=50, description="Of the app, or a recovery code.")]
OwnPassword = Annotated[
    SecretStr | None,
    Field(max_length=1000, description="The caller's; null where they have none, as they sign in elsewhere."),
]


class PasswordProof(Body):
    """The caller, once more. Spaces count."""

    model_config = ConfigDict(str_strip_whitespace=False)

    password: OwnPassword = None


class CodeProof(Body):
    """A code."""

    code: Code


class BothProofs(PasswordProof):
    """The caller, once more, with both factors."""

    code: Code


class SecondFactorAnswer(Answer):
    """Whether the caller must give a code to sign in."""

    enabled: bool
    confirmed_at: datetime | None
    recovery_codes_left: int


class EnrolmentAnswer(Answer):
    """For the authenticator app: `uri` as a QR code, or `secret` typed. Shown this once."""

    secret: str
    uri: str


class RecoveryCodesAnswer(Answer):
    """Each signs in once, in place of a code of the app. Shown this once."""

    recovery_codes: list[str]


@router.get("")
async def get_second_factor(actor: Annotated[Claims, signed_in()], parts: PartsOf) -> SecondFactorAnswer:
    """Whether the caller has a second factor."""
    return SecondFactorAnswer.model_validate(await parts.second_factors.get_state(actor))


@router.post("", status_code=201)
async def create_second_factor(
    body: PasswordProof, actor: Annotated[Claims, signed_in()], parts: PartsOf, origin: OriginOf
) -> EnrolmentAnswer:
    """Set up a second factor. It counts once it is confirmed."""
    return EnrolmentAnswer.model_validate(await parts.second_factors.enrol(actor, _secret(body.password), origin))


@router.post("/confirm")
async def confirm_second_factor(
    body: CodeProof, actor: Annotated[Claims, signed_in()], parts: PartsOf, origin: OriginOf
) -> RecoveryCodesAnswer:
    """Show that the app is set up. From now on signing in asks for a code."""
    codes = await parts.second_factors.confirm(actor, body.code.get_secret_value(), origin)
    return RecoveryCodesAnswer(recovery_codes=codes)


@router.post("/recovery-codes", status_code=201)
async def create_recovery_codes(
    body: CodeProof, actor: Annotated[Claims, signed_in()], parts: PartsOf, origin: OriginOf
) -> RecoveryCodesAnswer:
    """New recovery codes, in place of the old ones."""
    codes = await parts.second_factors.renew_recovery_codes(actor, body.code.get_secret_value(), origin)
    return RecoveryCodesAnswer(recovery_codes=codes)


@router.post("/disable", status_code=204)
async def disable_second_factor(
    body: BothProofs, actor: Annotated[Claims, signed_in()], parts: PartsOf, origin: OriginOf
) -> None:
    """Give the second factor up."""
    await parts.second_factors.give_up(actor, _secret(body.password), body.code.get_secret_value(), origin)


def _secret(given: SecretStr | None) -> str | None:
    return given.get_secret_value() if given else None

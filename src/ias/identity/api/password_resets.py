"""Passwords: changing one's own, setting one by a link."""

from typing import Annotated

from pydantic import ConfigDict, Field, SecretStr

from ias.identity.api.parts import OriginOf, PartsOf
from ias.kit.authorization import public, signed_in
from ias.kit.routing import Router
from ias.kit.tokens import Claims
from ias.kit.web import Body

router = Router(prefix="/identity/v1", tags=["passwords"])

Password = Annotated[SecretStr, Field(min_length=1, max_length=1000)]


class PasswordChange(Body):
    """The password to have from now on, and the one until now. Spaces count."""

    model_config = ConfigDict(str_strip_whitespace=False)

    current_password: Password
    new_password: Password


class Forgotten(Body):
    """Who cannot sign in."""

    email: Annotated[str, Field(max_length=320)]


class NewPassword(Body):
    """What the link carries, and the password to have from now on. Spaces count."""

    model_config = ConfigDict(str_strip_whitespace=False)

    token: Annotated[SecretStr, Field(min_length=1, max_length=200)]
    password: Password


@router.put("/me/password", status_code=204)
async def change_password(
    body: PasswordChange, actor: Annotated[Claims, signed_in()], parts: PartsOf, origin: OriginOf
) -> None:
    """Change the caller's password. Everywhere else they are signed out."""
    await parts.password_changes.change(
        actor, body.current_password.get_secret_value(), body.new_password.get_secret_value(), origin
    )


@router.post("/password-resets", status_code=202, openapi_extra=public("whoever asks cannot sign in"))
async def create_password_reset(body: Forgotten, parts: PartsOf, origin: OriginOf) -> None:
    """Send a link to the e-mail, if somebody has it. The answer does not say whether."""
    await parts.password_changes.ask_for_reset(body.email, origin)


@router.post("/password-resets/complete", status_code=204, openapi_extra=public("the link is the proof"))
async def complete_password_reset(body: NewPassword, parts: PartsOf, origin: OriginOf) -> None:
    """Set the password. Everywhere they are signed out; signing in comes next."""
    await parts.password_changes.complete_reset(body.token.get_secret_value(), body.password.get_secret_value(), origin)

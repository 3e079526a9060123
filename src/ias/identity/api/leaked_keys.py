"""Reports of keys that somebody found."""

from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from ias.identity.api.fields import single_line
from ias.identity.api.parts import OriginOf, PartsOf
from ias.kit.authorization import public
from ias.kit.routing import Router
from ias.kit.web import Answer, Body

router = Router(prefix="/identity/v1/leaked-keys", tags=["API keys"])


class LeakReport(Body):
    """Keys that were found where others can read them."""

    keys: Annotated[list[Annotated[SecretStr, Field(max_length=200)]], Field(min_length=1, max_length=20)]
    found_at: Annotated[
        str, Field(min_length=1, max_length=1000, description="Where: an address, say."), AfterValidator(single_line)
    ]


class LeakReportAnswer(Answer):
    """The report was taken. What came of it is the owners' to know."""

    received: int


@router.post("", status_code=202, openapi_extra=public("the key's text is the proof"))
async def report_leaked_keys(body: LeakReport, parts: PartsOf, origin: OriginOf) -> LeakReportAnswer:
    """Revoke keys by their text. The answer is the same whether or not they are keys of this platform."""
    await parts.leak_reports.report([key.get_secret_value() for key in body.keys], body.found_at, origin)
    return LeakReportAnswer(received=len(body.keys))

"""Types that several routes' schemas share."""

from typing import Annotated

from pydantic import Field

from ias.contracts.spending import ScopeKind
from ias.kit.web import Answer, Body

UsdText = Annotated[
    str, Field(pattern=r"^[0-9]{1,10}(\.[0-9]{1,9})?$", description="USD as a decimal string.", examples=["12.50"])
]
ModelName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        description="A model's public name.",
        examples=["llama-3.1-8b-instruct"],
    ),
]


class ScopeBody(Body):
    """What a ceiling applies to."""

    kind: ScopeKind
    id: ModelName = Field(description="The id of the org, project, API key or user; for a model its public name.")


class ScopeAnswer(Answer):
    """What a ceiling applies to."""

    kind: ScopeKind
    id: str

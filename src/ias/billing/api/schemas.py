"""Types that several routes' schemas share."""

from typing import Annotated

from pydantic import Field

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

"""Bodies of PATCH: absent fields stay as they are, and null is only for what may be empty."""

from typing import Any, ClassVar

from pydantic import model_validator

from ias.kit.web import Body


class Patch(Body, strict=True):
    """A body whose fields are all optional. Their defaults are never used: only what was sent counts."""

    nullable: ClassVar[frozenset[str]] = frozenset()
    """Fields that null empties."""

    @model_validator(mode="after")
    def _refuse_null(self) -> "Patch":
        for name in sorted(self.model_fields_set - self.nullable):
            if getattr(self, name) is None:
                raise ValueError(f"{name} may not be null; leave it out to keep it")
        return self

    def sent_fields(self) -> dict[str, Any]:
        """The fields that were sent, by name."""
        return {name: getattr(self, name) for name in self.model_fields_set}

"""Who asks for a change, as `core` wants to know it."""

from typing import Annotated

from fastapi import Query, Request

from ias.kit.authorization import Access
from ias.registry.core.changes import Author

DryRun = Annotated[
    bool, Query(description="Try only: the answer is what it would be, and nothing is changed. A POST answers 200.")
]


def author_of(request: Request, access: Access, *, dry_run: bool) -> Author:
    """The platform admin who asks. Raises ForbiddenError for anybody else."""
    return Author(access.on_platform().sub, request.state.request_id, dry_run)

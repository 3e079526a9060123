"""Who asks for a change, as `core` wants to know it."""

from ias.kit.authorization import Access
from ias.registry.core.changes import Author


def author_of(access: Access) -> Author:
    """The platform admin who asks. Raises ForbiddenError for anybody else."""
    access.on_platform()
    return Author(access.cause)

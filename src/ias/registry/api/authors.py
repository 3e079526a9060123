"""Who asks for a change and on which terms, as `core` wants to know it."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query

from ias.kit.authorization import Access
from ias.kit.etags import IfMatch, read_if_match
from ias.registry.core.changes import Author

_DryRun = Annotated[
    bool, Query(description="Try only: the answer is what it would be, and nothing is changed. A POST answers 200.")
]


@dataclass(frozen=True, slots=True)
class Terms:
    """What the request says about how a change is to be made."""

    dry_run: bool
    versions: frozenset[int] | None = None


async def _read_terms_of_creation(dry_run: _DryRun = False) -> Terms:
    return Terms(dry_run)


async def _read_terms(dry_run: _DryRun = False, if_match: IfMatch = None) -> Terms:
    return Terms(dry_run, read_if_match(if_match))


TermsOfCreation = Annotated[Terms, Depends(_read_terms_of_creation)]
TermsOfChange = Annotated[Terms, Depends(_read_terms)]


def author_of(access: Access, terms: Terms) -> Author:
    """The platform admin who asks. Raises ForbiddenError for anybody else."""
    access.on_platform()
    return Author(access.cause, terms.dry_run, terms.versions)

"""A request as routing sees it."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal

from ias.contracts.spending import QUEUE_WEIGHT_USUAL

if TYPE_CHECKING:
    from ias.gateway.routing.strategies import Candidate

Priority = Literal["high", "normal", "low"]
"""Orders the requests of one org among themselves; other orgs' shares are the same whatever it says."""

PRIORITIES: Final[tuple[Priority, ...]] = ("high", "normal", "low")

OUTPUT_WEIGHT: Final = 2
"""What a token of output is as work, a computed token of the prompt being 1; the choice of the paper that `fair_queue` names."""


class Ask:
    """One request that wants a place."""

    __slots__ = (
        "burdens",
        "is_guess",
        "is_streamed",
        "left_free",
        "looked_at",
        "names",
        "obstacles",
        "org_id",
        "output_tokens",
        "priority",
        "session",
        "tokens",
        "tried",
        "weight",
        "work",
    )

    def __init__(
        self,
        org_id: str,
        *,
        tokens: int = 0,
        output_tokens: int = 0,
        names: Sequence[int] = (),
        session: int | None = None,
        priority: Priority = "normal",
        is_streamed: bool = True,
        weight: int = QUEUE_WEIGHT_USUAL,
    ) -> None:
        self.org_id = org_id
        self.tokens = tokens
        """Of its prompt, as far as is known: an estimate."""
        self.output_tokens = output_tokens
        """That it is expected to make."""
        self.work = tokens + OUTPUT_WEIGHT * output_tokens
        """What its org is charged for it, see `fair_queue`."""
        self.names = names
        """Of its prompt's beginnings, see `prefixes`."""
        self.session = session
        """A hash of what it is to stay together with; None is nothing."""
        self.priority = priority
        self.is_streamed = is_streamed
        """Whether it will be seen when the prompt is computed: the answer begins then."""
        self.weight = weight
        """Of the org, where requests have to wait."""
        self.is_guess = False
        """Whether it was sent to the owner of its beginning without knowing whether that is cached there."""
        self.left_free: Collection[str] = ()
        """Ids of backends that were kept free for orgs that take less, and not looked at."""
        self.looked_at: Sequence[Candidate] = ()
        """Those it was last chosen from, and below what spoke against each: the least was chosen."""
        self.burdens: list[int] = []
        self.obstacles: Mapping[str, str] = {}
        """Why others could not be, by id."""
        self.tried: tuple[str, ...] = ()
        """Ids of the backends that have failed it."""

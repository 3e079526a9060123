"""What a worker lets through of orgs that allow for it while Redis is away: a stated amount in one outage, and no more.

Requests are charged with the most that they can cost, and get back what they did not use. What they did use is settled when Redis
is back, like everything else.
"""


class Unguarded:
    """What each org has been let through since Redis was last there, in nano-USD."""

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}
        self.admitted = 0
        self.refused = 0
        """For want of an allowance, or of what is left of it."""

    def take(self, org_id: str, amount_nano_usd: int, allowance_nano_usd: int | None) -> bool:
        """Charge a request; whether the org's allowance has as much left."""
        taken = self._taken.get(org_id, 0) + amount_nano_usd
        if allowance_nano_usd is None or taken > allowance_nano_usd:
            self.refused += 1
            return False
        self._taken[org_id] = taken
        self.admitted += 1
        return True

    def give_back(self, org_id: str, amount_nano_usd: int) -> None:
        """What a request did not use."""
        if org_id in self._taken:
            self._taken[org_id] -= amount_nano_usd

    def begin_anew(self) -> None:
        """Redis is there."""
        self._taken.clear()

    @property
    def taken_nano_usd(self) -> int:
        """Over all orgs."""
        return sum(self._taken.values())

"""Names of a prompt's beginnings, and which backend was sent what: the guess at where a prompt is cached.

A beginning is named by a checksum of its bytes that starts from the tenant's own, so that no tenant's prompts are ever taken for
another's. Beginnings are cut at fixed lengths, each half as long again as the one before: however long a prompt is, a few names
tell it, and what two prompts share is known to a third.
"""

import zlib
from collections import OrderedDict
from collections.abc import Sequence

BYTES_PER_TOKEN = 4


def _cut(shortest: int, longest: int) -> tuple[int, ...]:
    cuts = [shortest]
    while cuts[-1] * 3 // 2 <= longest:
        cuts.append(cuts[-1] * 3 // 2 // 16 * 16)
    return tuple(cuts)


CUTS = _cut(64, 20_000)
"""Tokens of the beginnings that have a name, whole blocks of 16: 64, 96, 144 … 16,000."""
_CUTS_BYTES = tuple(cut * BYTES_PER_TOKEN for cut in CUTS)


def name_beginnings(text: bytes | bytearray | memoryview, salt: int) -> list[int]:
    """The names of a text's beginnings, shortest first. Costs a quarter of a microsecond each and one per kilobyte."""
    names = []
    view = memoryview(text)
    length, start, name = len(text), 0, salt
    for end in _CUTS_BYTES:
        if end > length:
            break
        name = zlib.crc32(view[start:end], name)
        names.append(name)
        start = end
    return names


class Cache:
    """A backend's cache as long as it lives: a backend that was away has a new one. Only its identity matters."""

    __slots__ = ()


class PrefixTable:
    """Which caches were sent which beginnings lately, the most recent `names_max` of them."""

    def __init__(self, names_max: int = 200_000, holders_max: int = 8) -> None:
        self._names_max = names_max
        self._holders_max = holders_max
        self._known: OrderedDict[int, dict[Cache, None]] = OrderedDict()

    def match(self, names: Sequence[int]) -> dict[Cache, int]:
        """For each cache that knows any of the beginnings the tokens of the longest that it does."""
        matched: dict[Cache, int] = {}
        for name, cut in zip(names, CUTS, strict=False):
            holders = self._known.get(name)
            if holders is None:
                break
            for cache in holders:
                matched[cache] = cut
        return matched

    def note(self, names: Sequence[int], cache: Cache) -> None:
        """The cache is being sent these."""
        known = self._known
        for name in names:
            holders = known.get(name)
            if holders is None:
                known[name] = {cache: None}
                continue
            known.move_to_end(name)
            if cache not in holders:
                if len(holders) >= self._holders_max:
                    del holders[next(iter(holders))]
                holders[cache] = None
        while len(known) > self._names_max:
            known.popitem(last=False)

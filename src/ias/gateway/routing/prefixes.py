"""Names of a prompt's beginnings, and which backend was sent what: the guess at where a prompt is cached.

A beginning is named by a checksum of its bytes that starts from the tenant's own, so that no tenant's prompts are ever taken for
another's. Beginnings are cut at fixed lengths that grow by a quarter each: however long a prompt is, a few names tell it, and what
two long prompts share is known to a fifth. Known to a half it would be too little: a warm backend would seem to have half of a
prompt to compute.
"""

from collections.abc import Sequence
from typing import Final
from zlib import crc32

BYTES_PER_TOKEN: Final = 4


def _cut(longest: int) -> tuple[int, ...]:
    cuts = [64, 128, 256, 512]
    while cuts[-1] < longest:
        cuts.append(cuts[-1] * 5 // 4 // 16 * 16)
    return tuple(cuts)


CUTS: Final = _cut(16_000)
"""Tokens of the beginnings that have a name, whole blocks of 16: 64, 128, 256, 512, 640, 800 … to 16,000."""
_CUTS_BYTES: Final = tuple(cut * BYTES_PER_TOKEN for cut in CUTS)


def name_beginnings(text: bytes | bytearray, salt: int, start: int = 0) -> list[int]:
    """The names of a text's beginnings, shortest first; of a short text its own. The text is what follows `start`.

    Costs a quarter of a microsecond each and one per kilobyte.
    """
    names = []
    whole = text if isinstance(text, bytes) else bytes(text)
    length, at, name = len(whole) - start, 0, salt
    for end in _CUTS_BYTES:
        if end > length:
            break
        name = crc32(whole[start + at : start + end], name)
        names.append(name)
        at = end
    return names or [crc32(whole[start:], salt)]


class Cache:
    """A backend's cache as long as it lives: a backend that was away has a new one. Only its identity matters."""

    __slots__ = ()


class PrefixTable:
    """Which caches were sent which beginnings lately: the most recent ones, `names_max` at most.

    In two halves: when the younger one is full, the older one is forgotten, but for what has been asked for meanwhile.
    """

    def __init__(self, names_max: int = 200_000, holders_max: int = 8) -> None:
        self._half = names_max // 2
        self._holders_max = holders_max
        self._young: dict[int, list[Cache]] = {}
        self._old: dict[int, list[Cache]] = {}

    def match(self, names: Sequence[int]) -> dict[Cache, int]:
        """For each cache that knows any of the beginnings the tokens of the longest that it does."""
        known: list[list[Cache]] = []
        young = self._young
        for name in names:
            holders = young.get(name)
            if holders is None:
                holders = self._old.get(name)
                if holders is None:
                    break
                young[name] = holders
            known.append(holders)
        if not known:
            return {}
        # From the longest down, since whoever holds that holds the others as well, and they need not be looked through.
        depth = len(known) - 1
        longest = known[depth]
        matched = dict.fromkeys(longest, CUTS[depth])
        while depth:
            depth -= 1
            holders = known[depth]
            if holders != longest:
                for cache in holders:
                    if cache not in matched:
                        matched[cache] = CUTS[depth]
        return matched

    def note(self, names: Sequence[int], cache: Cache) -> None:
        """The cache is being sent these."""
        young = self._young
        for name in names:
            holders = young.get(name)
            if holders is None:
                young[name] = [cache]
            elif cache not in holders:
                if len(holders) >= self._holders_max:
                    del holders[0]
                holders.append(cache)
        if len(young) > self._half:
            self._old, self._young = young, {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

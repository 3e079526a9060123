"""Why a request went where it did: every backend with what spoke for or against it, as JSON."""

from collections.abc import Iterable
from typing import Final

from ias.gateway.routing.asks import Ask

_NUMBERS_COUNT: Final = 4096
_NUMBERS: Final = [str(number) for number in range(_NUMBERS_COUNT)]
"""Most burdens, as they are written."""


class Layout:
    """What all explanations of one choice have in common. It lasts for as long as nothing is heard of the backends."""

    __slots__ = ("_left_free", "_looked_at", "_obstacles", "_parts", "_tried")

    def __init__(self, ask: Ask, backend_ids: Iterable[str]) -> None:
        self._looked_at, self._obstacles, self._tried = ask.looked_at, ask.obstacles, ask.tried
        self._left_free = ask.left_free
        weighed = [candidate.load.backend_id for candidate in ask.looked_at]
        says = dict.fromkeys(backend_ids, "not_considered") | dict.fromkeys(ask.left_free, "kept_free")
        says |= dict.fromkeys(ask.tried, "failed") | dict(ask.obstacles)
        members = [f'"{backend_id}":' for backend_id in weighed]
        members += [f'"{backend_id}":"{said}"' for backend_id, said in says.items() if backend_id not in weighed]
        self._parts = ["{"]
        """Text, and at every second place a burden."""
        for index, member in enumerate(members):
            self._parts[-1] += ("," if index else "") + member
            if index < len(weighed):
                self._parts += ("", "")
        self._parts[-1] += "}"

    def fits(self, ask: Ask) -> bool:
        """Whether it is the one for this request."""
        return (
            ask.looked_at is self._looked_at
            and ask.obstacles is self._obstacles
            and ask.left_free is self._left_free
            and ask.tried == self._tried
        )

    def fill(self, ask: Ask) -> str:
        """With the request's burdens."""
        parts, at = self._parts, 1
        for burden in ask.burdens:
            parts[at] = _NUMBERS[burden] if 0 <= burden < _NUMBERS_COUNT else str(burden)
            at += 2
        return "".join(parts)

"""Names of blocks of text: a chain of digests, so that a block is found only behind the same beginning, salt and adapter."""

import hashlib
from collections.abc import Iterable

from ias.engine.blocks import BLOCK_TOKENS


class BlockNames:
    """The names of a growing text's full blocks."""

    def __init__(self, salt: str | None, lora: str | None) -> None:
        self._parent = hashlib.blake2b(
            f"{lora or ''}\0{salt or ''}".encode("utf-8", "surrogatepass"), digest_size=16
        ).digest()
        self._pending: list[str] = []

    def extend(self, pieces: Iterable[str]) -> list[bytes]:
        """Append tokens; the names of the blocks that are full now and were not before."""
        names = []
        for piece in pieces:
            self._pending.append(piece)
            if len(self._pending) == BLOCK_TOKENS:
                content = "\0".join(self._pending).encode("utf-8", "surrogatepass")
                self._parent = hashlib.blake2b(self._parent + content, digest_size=16).digest()
                self._pending = []
                names.append(self._parent)
        return names

    def copy(self) -> "BlockNames":
        """Another text that begins with this one."""
        other = BlockNames(None, None)
        other._parent, other._pending = self._parent, list(self._pending)
        return other

"""Prompts without text: what they are made of, named block by block as a cache (or a router) would name them."""

from collections.abc import Sequence

from ias.engine.blocks import BLOCK_TOKENS


class Prompt:
    """An immutable run of tokens; what begins alike has the same names up to there."""

    __slots__ = ("_pending", "_root", "names", "tokens")

    def __init__(
        self, salt: int = 0, *, tokens: int = 0, names: Sequence[int] = (), pending: tuple[int, ...] = ()
    ) -> None:
        self.tokens = tokens
        self.names = names
        """One for each full block; equal names mean that everything up to the block's end is equal, the salt included."""
        self._root = hash((salt, salt))
        self._pending = pending
        """What the last block, not yet full, holds: content, position and length of each piece."""

    def extend(self, content: int, tokens: int) -> "Prompt":
        """This prompt followed by so many tokens of a content; the same content and length are the same tokens."""
        names = list(self.names)
        parent = names[-1] if names else self._root
        pending, filled, position = self._pending, self.tokens % BLOCK_TOKENS, 0
        while position < tokens:
            if not filled and tokens - position >= BLOCK_TOKENS:
                parent = hash((parent, content, position))  # of integers alone: the same in every process
                names.append(parent)
                position += BLOCK_TOKENS
                continue
            taken = min(BLOCK_TOKENS - filled, tokens - position)
            pending = (*pending, content, position, taken)
            position += taken
            filled += taken
            if filled == BLOCK_TOKENS:
                parent = hash((parent, pending))
                names.append(parent)
                pending, filled = (), 0
        longer = Prompt(tokens=self.tokens + tokens, names=names, pending=pending)
        longer._root = self._root
        return longer

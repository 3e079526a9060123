"""The prefix cache: which leading blocks of a prompt the replica has computed before.

Blocks are named by a chain of hashes, so that a block is found only behind the same beginning and under the same salt.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

BLOCK_TOKENS = 16


class PrefixCache:
    """Block hashes in the order of their last use; the least recently used leave first."""

    def __init__(self, blocks_max: int) -> None:
        self._blocks_max = blocks_max
        self._blocks: OrderedDict[bytes, None] = OrderedDict()

    def take(self, prompt: Sequence[str], salt: str | None) -> int:
        """How many tokens of the prompt are cached; afterwards all its full blocks are.

        Never the whole prompt: the last token is always computed, because the answer's first token comes from it.
        """
        hashes = _hash_blocks(prompt, salt)
        found = 0
        for block in hashes:
            if block not in self._blocks:
                break
            found += 1
        for block in reversed(hashes):  # so that the end of a prompt is evicted before its beginning
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > self._blocks_max:
            self._blocks.popitem(last=False)
        return min(found * BLOCK_TOKENS, (len(prompt) - 1) // BLOCK_TOKENS * BLOCK_TOKENS) if prompt else 0


def _hash_blocks(prompt: Sequence[str], salt: str | None) -> list[bytes]:
    parent = hashlib.sha256((salt or "").encode("utf-8", "surrogatepass")).digest()
    hashes = []
    for start in range(0, len(prompt) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
        block = "\0".join(prompt[start : start + BLOCK_TOKENS]).encode("utf-8", "surrogatepass")
        parent = hashlib.sha256(parent + block).digest()
        hashes.append(parent)
    return hashes

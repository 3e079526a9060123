"""The paged KV cache: a fixed number of blocks, counted references, and prefix caching by chained block hashes.

After vLLM's design (docs/design/prefix_caching.md of vLLM): a block is used while its reference count is above zero. A block that
nobody uses waits in a queue and keeps its content until it is taken for something else, so the least recently used is evicted
first. A freed sequence's blocks are queued in reverse, so that the end of a prompt is evicted before its beginning.

Pure: no clock, no I/O. A hash is whatever names a block together with everything before it; `text_hashes.py` makes them of text.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence

BLOCK_TOKENS = 16
"""Tokens per block: vLLM's default on GPUs."""


class BlockPool:
    """All blocks of one replica."""

    def __init__(self, blocks: int) -> None:
        self.total = blocks
        self._references = [0] * blocks
        self._hash_of: list[Hashable | None] = [None] * blocks
        self._by_hash: dict[Hashable, int] = {}
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(blocks))

    @property
    def free(self) -> int:
        """Blocks that nobody uses, cached content or not."""
        return len(self._free)

    @property
    def used(self) -> int:
        """Blocks that at least one sequence refers to."""
        return self.total - len(self._free)

    @property
    def cached(self) -> int:
        """Blocks that could be found by their hash, used or not."""
        return len(self._by_hash)

    def find_prefix(self, hashes: Sequence[Hashable], blocks_max: int) -> list[int]:
        """The longest run of cached blocks from the beginning, at most so many. Takes nothing."""
        found: list[int] = []
        for index in range(min(blocks_max, len(hashes))):
            block = self._by_hash.get(hashes[index])
            if block is None:
                break
            found.append(block)
        return found

    def count_unused(self, blocks: Sequence[int]) -> int:
        """How many of these would leave the free queue if they were taken."""
        return sum(1 for block in blocks if not self._references[block])

    def take_cached(self, blocks: Sequence[int]) -> None:
        """Add a reference to each of these blocks."""
        for block in blocks:
            if not self._references[block]:
                del self._free[block]
            self._references[block] += 1

    def allocate(self, count: int) -> list[int]:
        """Take so many blocks for new content; what they held is evicted.

        Raises:
            KeyError: there are fewer free ones; ask `free` before.
        """
        taken = []
        for _ in range(count):
            block, _nothing = self._free.popitem(last=False)
            hashed = self._hash_of[block]
            if hashed is not None:
                del self._by_hash[hashed]
                self._hash_of[block] = None
            self._references[block] = 1
            taken.append(block)
        return taken

    def name(self, block: int, hashed: Hashable) -> None:
        """Make a full block findable. Where another block has the same content, that one stays the one that is found."""
        if hashed not in self._by_hash:
            self._by_hash[hashed] = block
            self._hash_of[block] = hashed

    def release(self, blocks: Sequence[int]) -> None:
        """Drop one reference to each of a sequence's blocks, given in the order of its tokens."""
        for block in reversed(blocks):
            self._references[block] -= 1
            if not self._references[block]:
                self._free[block] = None

    def forget(self) -> None:
        """Forget all cached content that nobody uses, as vLLM does when it goes to sleep."""
        for block in self._free:
            hashed = self._hash_of[block]
            if hashed is not None:
                del self._by_hash[hashed]
                self._hash_of[block] = None

    def check(self) -> None:
        """Verify the books, for tests.

        Raises:
            AssertionError: a block is lost, counted twice, or found under a hash that is not its own.
        """
        unused = {block for block, count in enumerate(self._references) if count == 0}
        if unused != set(self._free) or min(self._references, default=0) < 0:
            raise AssertionError("free queue and reference counts disagree")
        named = {block: hashed for block, hashed in enumerate(self._hash_of) if hashed is not None}
        if named != {block: hashed for hashed, block in self._by_hash.items()}:
            raise AssertionError("hashes and blocks disagree")

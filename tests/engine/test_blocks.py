"""The cache's books balance, whatever is taken and given back in whatever order."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ias.engine.block_names import BlockNames
from ias.engine.blocks import BLOCK_TOKENS, BlockPool

PROMPT = [f"t{number}" for number in range(100)]


class PoolMachine(RuleBasedStateMachine):
    """Holders that take prefixes and new blocks, name them, and let them go."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(12)
        self.held: list[list[int]] = []

    @rule(family=st.integers(0, 3), blocks=st.integers(1, 6))
    def take(self, family: int, blocks: int) -> None:
        names = [(family, index) for index in range(blocks)]
        cached = self.pool.find_prefix(names, blocks)
        if blocks - len(cached) > self.pool.free - self.pool.count_unused(cached):
            return
        self.pool.take_cached(cached)
        own = self.pool.allocate(blocks - len(cached))
        for block, name in zip(own, names[len(cached) :], strict=True):
            self.pool.name(block, name)
        self.held.append([*cached, *own])
        assert self.pool.find_prefix(names, blocks) != []

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 100))
    def release(self, which: int) -> None:
        self.pool.release(self.held.pop(which % len(self.held)))

    @rule()
    def forget(self) -> None:
        self.pool.forget()

    @invariant()
    def nothing_is_lost(self) -> None:
        self.pool.check()
        assert self.pool.free + self.pool.used == self.pool.total
        assert self.pool.used == len({block for blocks in self.held for block in blocks})
        assert sum(self.pool._references) == sum(len(blocks) for blocks in self.held)


TestPool = PoolMachine.TestCase


def test_the_block_used_longest_ago_is_evicted_first_and_a_prompts_end_before_its_beginning() -> None:
    pool = BlockPool(3)
    blocks = pool.allocate(3)
    for block, name in zip(blocks, "abc", strict=True):
        pool.name(block, name)
    pool.release(blocks)
    pool.allocate(1)
    assert pool.find_prefix("abc", 3) == blocks[:2]


def test_a_block_is_named_after_everything_before_it() -> None:
    plain = BlockNames(None, None).extend(PROMPT)
    assert len(plain) == len(PROMPT) // BLOCK_TOKENS
    changed = BlockNames(None, None).extend([*PROMPT[:40], "other", *PROMPT[41:]])
    assert [one == other for one, other in zip(plain, changed, strict=True)] == [True, True, False, False, False, False]


def test_another_salt_or_adapter_names_no_block_alike() -> None:
    names = [set(BlockNames(salt, lora).extend(PROMPT)) for salt in (None, "a", "b") for lora in (None, "x")]
    assert len(set.union(*names)) == sum(map(len, names))


def test_a_text_that_grows_is_named_as_if_it_had_been_whole() -> None:
    names = BlockNames("salt", None)
    grown = names.extend(PROMPT[:37])
    other = names.copy()
    assert grown + names.extend(PROMPT[37:]) == BlockNames("salt", None).extend(PROMPT)
    assert grown + other.extend(PROMPT[37:]) == BlockNames("salt", None).extend(PROMPT)

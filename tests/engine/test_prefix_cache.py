from hypothesis import given
from hypothesis import strategies as st

from ias.engine.prefix_cache import BLOCK_TOKENS, PrefixCache

PROMPT = [f"t{number}" for number in range(100)]


def test_a_prompt_seen_before_is_cached_up_to_its_last_full_block() -> None:
    cache = PrefixCache(1000)
    assert cache.take(PROMPT, None) == 0
    assert cache.take(PROMPT, None) == 96


def test_a_shared_beginning_is_cached_for_another_prompt() -> None:
    cache = PrefixCache(1000)
    cache.take(PROMPT, None)
    assert cache.take([*PROMPT[:40], "other", *PROMPT[41:]], None) == 32


def test_a_salt_of_one_tenant_finds_nothing_of_another() -> None:
    cache = PrefixCache(1000)
    cache.take(PROMPT, "tenant a")
    assert cache.take(PROMPT, "tenant b") == 0


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 80)), max_size=30), st.integers(1, 8))
def test_never_more_than_the_prompt_less_one_token_and_never_more_blocks_than_there_are(
    prompts: list[tuple[int, int]], blocks: int
) -> None:
    cache = PrefixCache(blocks)
    for family, length in prompts:
        cached = cache.take([f"{family}.{number}" for number in range(length)], None)
        assert cached % BLOCK_TOKENS == 0
        assert cached <= max(0, length - 1)
        assert cached <= blocks * BLOCK_TOKENS

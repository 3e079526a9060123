import math

from hypothesis import given
from hypothesis import strategies as st

from ias.engine.generation import NATURAL_TOKENS_MIN, Answer, Emission, Limits, answer_seed, embed
from ias.engine.tokenizer import tokenize


def run(seed: int, limits: Limits) -> tuple[str, Emission, int]:
    answer = Answer(answer_seed(seed, ["prompt"], None, 0), limits)
    text = ""
    while True:
        emission = answer.advance()
        text += emission.text
        if emission.finish_reason:
            return text, emission, answer.tokens


def test_the_same_seed_gives_the_same_bytes() -> None:
    assert run(1, Limits(500)) == run(1, Limits(500))
    assert run(1, Limits(500)) != run(2, Limits(500))


@given(st.integers(0, 50), st.integers(1, NATURAL_TOKENS_MIN - 1))
def test_the_limit_ends_an_answer_with_length(seed: int, tokens_max: int) -> None:
    _, last, tokens = run(seed, Limits(tokens_max))
    assert (last.finish_reason, tokens) == ("length", tokens_max)


@given(st.integers(0, 200), st.data())
def test_a_stop_sequence_ends_the_text_where_it_would_have_begun(seed: int, data: st.DataObject) -> None:
    whole, _, _ = run(seed, Limits(500))
    start = data.draw(st.integers(0, len(whole) - 1))
    stop = whole[start : start + data.draw(st.integers(1, 12))]
    text, last, tokens = run(seed, Limits(500, stop=("never so", stop)))
    assert text == whole[: whole.index(stop)]
    assert (last.finish_reason, last.stop_reason) == ("stop", stop)
    assert tokens == len(tokenize(whole[: len(text) + len(stop)]))


def test_nothing_but_the_limit_ends_an_answer_that_ignores_its_natural_end() -> None:
    _, last, tokens = run(3, Limits(2000, ignore_natural_end=True))
    assert (last.finish_reason, tokens) == ("length", 2000)


def test_embeddings_have_length_one_and_are_nearer_for_texts_that_share_words() -> None:
    def near(a: str, b: str) -> float:
        return sum(x * y for x, y in zip(embed(0, tokenize(a), 64), embed(0, tokenize(b), 64), strict=True))

    assert math.isclose(near("red house", "red house"), 1)
    assert near("the red house stands", "the red house fell") > near("the red house stands", "numbers add up")

from hypothesis import given
from hypothesis import strategies as st

from ias.engine.generation import Answer, Limits, answer_seed
from ias.engine.tokenizer import IMAGE_TOKENS, tokenize, tokenize_chat


@given(st.text())
def test_the_pieces_of_a_text_joined_are_the_text(text: str) -> None:
    assert "".join(tokenize(text)) == text


@given(st.text())
def test_a_text_has_at_most_as_many_tokens_as_bytes(text: str) -> None:
    assert len(tokenize(text)) <= len(text.encode("utf-8", "surrogatepass"))


@given(st.integers(), st.integers(1, 300))
def test_generated_text_has_as_many_tokens_as_were_counted(seed: int, tokens_max: int) -> None:
    answer = Answer(answer_seed(seed, ["x"], None, 0), Limits(tokens_max))
    text = ""
    while answer.finish_reason is None:
        text += answer.advance().text
    assert len(tokenize(text)) == answer.tokens <= tokens_max


def test_a_conversation_counts_its_roles_its_parts_and_its_media() -> None:
    plain = tokenize_chat([{"role": "user", "content": "one two"}])
    parts = [{"type": "text", "text": "one two"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    assert len(tokenize_chat([{"role": "user", "content": parts}])) == len(plain) + IMAGE_TOKENS
    assert len(tokenize_chat([{"role": "user", "content": "one"}])) < len(plain)

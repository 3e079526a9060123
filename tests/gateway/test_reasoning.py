"""Reasoning gets its second name, and nothing else changes."""

import copy
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ias.gateway.reasoning import name_twice

NAMES = ("reasoning", "reasoning_content")
texts = st.sampled_from(['"delta":{"reasoning":"x"}', "\\", '\\"', "", "🙂", "reasoning"]) | st.text(max_size=5)
members = st.dictionaries(st.sampled_from([*NAMES, "role", "content", "x"]), st.none() | texts, max_size=4)
choices = st.lists(
    st.dictionaries(st.sampled_from(["delta", "message", "index"]), members | st.none() | st.integers(), max_size=3)
    | st.none()
    | texts,
    max_size=3,
)
documents = st.dictionaries(st.sampled_from(["choices", *NAMES, "id"]), choices | texts | st.none(), max_size=4)


def expected(document: dict[str, Any]) -> dict[str, Any]:
    document = copy.deepcopy(document)
    if not isinstance(document.get("choices"), list):
        return document
    for choice in document["choices"]:
        for name in ("delta", "message"):
            message = choice.get(name) if isinstance(choice, dict) else None
            if isinstance(message, dict) and len(message.keys() & set(NAMES)) == 1:
                (value,) = (message[known] for known in NAMES if known in message)
                message |= dict.fromkeys(NAMES, value)
    return document


@given(documents, st.booleans(), st.booleans())
def test_any_document_gains_the_missing_names_only(document: dict[str, Any], compact: bool, ascii_only: bool) -> None:
    separators = (",", ":") if compact else None
    try:
        text = json.dumps(document, separators=separators, ensure_ascii=ascii_only).encode()
    except UnicodeEncodeError:  # a lone surrogate
        return
    edited = name_twice(text)
    assert json.loads(edited) == expected(document)
    if expected(document) == document:
        assert edited == text


@given(texts, st.sampled_from(['"role":"assistant",', ""]))
def test_the_usual_form_of_an_event(thought: str, role: str) -> None:
    value = json.dumps(thought)
    event = f'{{"choices":[{{"index":0,"delta":{{{role}"reasoning":{value}}}}}]}}'
    named = f'{{"choices":[{{"index":0,"delta":{{{role}"reasoning":{value},"reasoning_content":{value}}}}}]}}'
    assert json.loads(name_twice(event.encode())) == json.loads(named)


@given(st.binary(max_size=60))
def test_what_is_no_answer_stays(garbage: bytes) -> None:
    text = b'{"reasoning":' + json.dumps(garbage.decode("latin-1")).encode() + b"}"
    assert name_twice(text) == text

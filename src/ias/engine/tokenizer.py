"""A simple tokenizer of the engine's own: words, digits and signs. The pieces of a text joined together are the text."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

# A word or a number takes the space before it along, as in the vocabularies of real models.
_PIECE = re.compile(r" ?[A-Za-z]{1,12}| ?[0-9]{1,3}|\s+|[^\sA-Za-z0-9]")

IMAGE_TOKENS = 64
"""What one image, sound or file counts for; the engine does not look inside."""

_MEDIA_PIECES = ("<media>",) * IMAGE_TOKENS


def tokenize(text: str) -> list[str]:
    """The pieces of a text, in order. The number of pieces is the number of tokens."""
    return _PIECE.findall(text)


def tokenize_ids(ids: Iterable[int]) -> list[str]:
    """A prompt that came as token ids: each is one piece."""
    return [f"<{token}>" for token in ids]


def tokenize_chat(messages: Iterable[Mapping[str, Any]]) -> list[str]:
    """A conversation as the model sees it: each message between two marks that name its role, then the mark to answer."""
    pieces: list[str] = []
    for message in messages:
        pieces.append(f"<{message.get('role')}>")
        pieces += _tokenize_content(message.get("content"))
        if calls := message.get("tool_calls"):
            pieces += tokenize(msgspec.json.encode(calls).decode())
        pieces.append("<end>")
    pieces.append("<assistant>")
    return pieces


def _tokenize_content(content: Any) -> list[str]:
    if isinstance(content, str):
        return tokenize(content)
    pieces: list[str] = []
    for part in content or ():
        if isinstance(part, str):
            pieces += tokenize(part)
        elif part.get("type") in {"text", "refusal"}:
            pieces += tokenize(str(part.get("text") or part.get("refusal") or ""))
        else:
            pieces += _MEDIA_PIECES
    return pieces

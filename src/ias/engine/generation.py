"""What the engine says: sentences drawn from a seed, and where they end.

The same seed, prompt and request give the same bytes, on every machine and at every pace.
"""

import hashlib
import random
from collections.abc import Sequence as Pieces
from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length"]

NATURAL_TOKENS_MIN = 24
NATURAL_TOKENS_MAX = 160
"""An answer that nothing cuts short is between these many tokens long."""

_SENTENCE_TOKENS_MIN = 5
_SENTENCE_TOKENS_MAX = 14

# Plain lower-case words: each is one piece to the tokenizer, with the space before it.
_WORDS = (  # noqa: SIM905  # three hundred quoted words read worse
    "a all also and answer any are as ask at balance batch be because before better between block both bound budget build but "
    "by cache call can change check clear clock close code come cost count data day deep do each early edge end engine even "
    "every fact fair far fast few field file find first flow follow for form frame free from full gate get give go good great "
    "ground grow hand have hear help here high hold hour how idea if in into is it join just keep key kind know large last "
    "late layer lead learn leave length less let light like limit line list little live load local long look loop low make "
    "many map mark may mean measure meet model more most move much must name near need never new next no node not note now "
    "number of old on once one only open or order other our out over own part past path place plan point power price prompt "
    "proof pure queue quick quiet rate read real request rest right ring road room route rule run safe same say see send set "
    "shape share short show side simple size slow small some soon source space split stand start state stay step still store "
    "stream strong such sure system table take talk task tell test text than that the then there they thing think this "
    "through time to token too tool trace true try turn two under until up us usage use value very wait walk way we week well "
    "what when where which while whole why will window with within word work world write year yes you"
).split()


@dataclass(frozen=True, slots=True)
class Limits:
    """What ends an answer besides its own end."""

    tokens_max: int
    tokens_min: int = 0
    """No natural end and no stop sequence before this many."""
    stop: tuple[str, ...] = ()
    ignore_natural_end: bool = False


@dataclass(frozen=True, slots=True)
class Emission:
    """What one step adds to an answer: one token, whose text may be held back while it could begin a stop sequence."""

    text: str
    finish_reason: FinishReason | None = None
    stop_reason: str | None = None
    """The stop sequence that matched; it is not part of the text."""


class Answer:
    """One answer as it grows: `advance` generates the next token until an emission carries a finish reason."""

    def __init__(self, seed: bytes, limits: Limits) -> None:
        self._random = random.Random(seed)  # noqa: S311  # reproducible text, not a secret
        self.limits = limits
        self._natural_tokens = self._random.randint(NATURAL_TOKENS_MIN, NATURAL_TOKENS_MAX)
        self._sentence_left = 0
        self._held_back = ""
        self.tokens = 0
        """Tokens generated so far."""
        self.last_piece = ""
        """The newest token, whether or not its text is held back."""
        self.finish_reason: FinishReason | None = None

    def advance(self) -> Emission:
        """Generate one token."""
        piece = self.last_piece = self._next_piece()
        self.tokens += 1
        text = self._held_back + piece
        if matched := self._find_stop(text):
            self._held_back = ""
            return self._finish("stop", text[: text.index(matched)], matched)
        if self._is_at_natural_end():
            return self._finish("stop", text)
        if self.tokens >= self.limits.tokens_max:
            return self._finish("length", text)
        held = _longest_stop_beginning(text, self.limits.stop)
        self._held_back = text[len(text) - held :]
        return Emission(text[: len(text) - held])

    def _finish(self, reason: FinishReason, text: str, stop_reason: str | None = None) -> Emission:
        self.finish_reason = reason
        return Emission(text, reason, stop_reason)

    def _is_at_natural_end(self) -> bool:
        if self.limits.ignore_natural_end or self.tokens < self.limits.tokens_min:
            return False
        return self.tokens >= self._natural_tokens and self._sentence_left == 0

    def _next_piece(self) -> str:
        """The next word, or the full stop that ends a sentence."""
        if self._sentence_left == 1:
            self._sentence_left = 0
            return "."
        word = self._random.choice(_WORDS)
        if self._sentence_left == 0:
            self._sentence_left = self._random.randint(_SENTENCE_TOKENS_MIN, _SENTENCE_TOKENS_MAX)
            word = word.capitalize()
        self._sentence_left -= 1
        return word if self.tokens == 0 else f" {word}"

    def _find_stop(self, text: str) -> str | None:
        """The stop sequence that begins first in the text."""
        if self.tokens < self.limits.tokens_min:
            return None
        found = [(text.index(stop), stop) for stop in self.limits.stop if stop in text]
        return min(found)[1] if found else None


def answer_seed(engine_seed: int, prompt: Pieces[str], request_seed: int | None, index: int) -> bytes:
    """The seed of one answer: of the engine, the whole prompt, the request's own seed and the choice."""
    digest = hashlib.sha256(f"{engine_seed}|{request_seed}|{index}|".encode())
    for piece in prompt:
        digest.update(piece.encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    return digest.digest()


def embed(engine_seed: int, pieces: Pieces[str], dimensions: int) -> list[float]:
    """A vector of length one for a text: the sum of one random direction per piece, so that like texts are near."""
    total = [0.0] * dimensions
    for piece in pieces:
        direction = random.Random(f"{engine_seed}|{piece}")  # noqa: S311  # reproducible vectors, not a secret
        for axis in range(dimensions):
            total[axis] += direction.uniform(-1, 1)
    length = sum(value * value for value in total) ** 0.5 or 1.0
    return [value / length for value in total]


def _longest_stop_beginning(text: str, stops: tuple[str, ...]) -> int:
    """How many characters at the end of the text could be the beginning of a stop sequence."""
    longest = 0
    for stop in stops:
        for size in range(min(len(stop) - 1, len(text)), longest, -1):
            if text.endswith(stop[:size]):
                longest = size
                break
    return longest

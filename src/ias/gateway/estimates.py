"""What a request used, as far as can be told without the engine's own count. Such usage is marked as estimated.

An event of a stream carries one token, as a rule; in whole text and in requests four bytes make a token. No estimate is above
the bound that admission reserved for.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from ias.gateway.admit import bound_input_tokens, bound_output_tokens
from ias.gateway.exchange import Exchange
from ias.gateway.token_counts import TokenCounts

_BYTES_PER_TOKEN = 4
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')


class _Choice(msgspec.Struct):
    """A choice of an event (`delta`, `text`) or of a whole answer (`message`, `text`)."""

    delta: dict[str, Any] | None = None
    message: dict[str, Any] | None = None
    text: str | None = None

    def size(self) -> int:
        """Bytes of what the model made, as far as it is text or tool calls."""
        made = {**(self.delta or {}), **(self.message or {})}
        made.pop("role", None)
        values = [value for value in made.values() if value]
        return len((self.text or "").encode()) + sum(
            len(value.encode()) if isinstance(value, str) else len(msgspec.json.encode(value)) for value in values
        )


class _Choices(msgspec.Struct):
    choices: list[_Choice]


_decoder = msgspec.json.Decoder(_Choices)


def estimate_stream(
    exchange: Exchange, *, events: int, first: bytes, last: Iterable[bytes], ended: bool
) -> TokenCounts:
    """Usage of a stream: one token for each event that carried some, not for those that only begin or end a choice.

    `first` is the first event, `last` the last blocks of events; `ended`: the stream came to its proper end.
    """
    if not exchange.endpoint.has_named_events:
        if _carries_nothing(first):
            events -= exchange.reading.choices
        endings = sum(1 for line in _finish_lines(last) if _carries_nothing(line))
        events -= exchange.reading.choices if ended and endings else endings
    return TokenCounts(estimate_input(exchange), 0, _bounded(exchange, events), estimated=True)


def estimate_answer(exchange: Exchange, body: bytes | bytearray) -> TokenCounts:
    """Usage of a whole answer, by the length of its text."""
    output = 0
    if exchange.endpoint.output_limit is not None:
        choices = _read_choices(body)
        size = len(body) if choices is None else sum(choice.size() for choice in choices)
        output = _bounded(exchange, -(-size // _BYTES_PER_TOKEN))
    return TokenCounts(estimate_input(exchange), 0, output, estimated=True)


def estimate_abandoned(exchange: Exchange, answer_bytes: int) -> TokenCounts:
    """Usage of a request that was at a backend when its client left: its input, and what is known of the answer's length.

    Nobody knows how far the engine had come. What it made and nobody read is not guessed at.
    """
    output = _bounded(exchange, -(-answer_bytes // _BYTES_PER_TOKEN)) if exchange.endpoint.output_limits else 0
    return TokenCounts(estimate_input(exchange), 0, output, estimated=True)


def estimate_input(exchange: Exchange) -> int:
    """Tokens of a request's body."""
    return max(1, min(len(exchange.request.body) // _BYTES_PER_TOKEN, bound_input_tokens(exchange)))


def _bounded(exchange: Exchange, tokens: int) -> int:
    return max(0, min(tokens, bound_output_tokens(exchange)))


def _finish_lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines that end a choice, of blocks that may stand there once for each of their events."""
    seen: bytes | None = None
    for block in blocks:
        if block is not seen:
            yield from (line for line in block.split(b"\n") if _FINISHED.search(line))
        seen = block


def _carries_nothing(line: bytes) -> bool:
    choices = _read_choices(line[max(0, line.find(b"{")) :])
    return choices is not None and not any(choice.size() for choice in choices)


def _read_choices(text: bytes | bytearray) -> list[_Choice] | None:
    try:
        return _decoder.decode(text).choices
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None

"""Reads what engines say of the tokens that were used."""

from typing import Final

import msgspec

from ias.contracts.usage_messages import COUNT_MAX
from ias.gateway.token_counts import TokenCounts
from ias.gateway.usage import Answer, ReportedUsage, StreamedChunk

_answer_decoder: Final = msgspec.json.Decoder(Answer)
_usage_decoder: Final = msgspec.json.Decoder(ReportedUsage)
_chunk_decoder: Final = msgspec.json.Decoder(StreamedChunk)


def to_counts(usage: ReportedUsage) -> TokenCounts | None:
    """Billable counts; None when the report is empty or nonsense (negative numbers, or more than can be booked)."""
    is_chat = usage.prompt_tokens is not None
    given = usage.prompt_tokens if is_chat else usage.input_tokens
    made = usage.completion_tokens if is_chat else usage.output_tokens
    details = usage.prompt_tokens_details if is_chat else usage.input_tokens_details
    cached = (details.cached_tokens if details is not None else 0) or 0
    made = made or 0
    if given is None or not (0 <= given <= COUNT_MAX and 0 <= made <= COUNT_MAX):
        return None
    return TokenCounts(given, min(max(cached, 0), given), made)


class NoJsonObjectError(ValueError):
    """A backend's answer is no JSON object."""


def read_answer_usage(body: bytes | bytearray) -> TokenCounts | None:
    """The usage of an unstreamed answer; None when it has none that can be read.

    Raises:
        NoJsonObjectError: see there.
    """
    try:
        usage = _answer_decoder.decode(body).usage
    except msgspec.ValidationError as error:
        if "at `$." in str(error):
            return None
        raise NoJsonObjectError from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise NoJsonObjectError from error
    return None if usage is None else to_counts(usage)


def read_usage(data: bytes) -> TokenCounts | None:
    """The counts of a `usage` by itself; None when they cannot be read."""
    try:
        return to_counts(_usage_decoder.decode(data))
    except (msgspec.MsgspecError, RecursionError):
        return None


def read_chunk(data: bytes) -> StreamedChunk | None:
    """A stream's event, as far as usage is concerned; None when it is not such JSON."""
    try:
        return _chunk_decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError):
        return None

"""Reads a request's body as far as the gateway acts on it, and refuses what engines could read in another way, or not at all."""

import re
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

import msgspec
from msgspec import UNSET

from ias.gateway.errors import Refusal, invalid, unparsable_body
from ias.gateway.json_splice import Buffer, list_members
from ias.gateway.peek import ChatPeek, CompletionPeek, Decoder, EmbeddingPeek, Peek, ResponsePeek

CHOICES_MAX: Final = 128
_METADATA_ENTRIES_MAX: Final = 16
_METADATA_NAME_LENGTH_MAX: Final = 64
_METADATA_VALUE_LENGTH_MAX: Final = 512

_ACTED_ON: Final = re.compile(
    rb'"(?=[bimnps])(m(?:odel|essages|ax_(?:completion_|output_)?tokens)|stream(?:_options)?|n|best_of|prompt|input'
    rb'|background|previous_response_id)"[ \t\r\n]*+:'
)
_ESCAPED_LETTER: Final = re.compile(rb"\\u00[4-7]")
_MEMBERS_MAX: Final = 1000
_LARGE_BYTES: Final = 262_144
_COLONS_MAX: Final = 100_000
_BRACKETS_MAX: Final = 500_000

_WRONG_TYPE: Final = re.compile(r"Expected `(?P<expected>[^`]+)`, got `(?P<got>[^`]+)`(?: - at `\$\.?(?P<path>.*)`)?$")
_OUT_OF_RANGE: Final = re.compile(r"Number out of range - at `\$\.?(?P<path>.*)`$")
_TYPE_NAMES: Final[Mapping[str, str]] = {
    "int": "an integer",
    "float": "a decimal",
    "str": "a string",
    "bool": "a boolean",
    "array": "an array",
    "object": "an object",
    "null": "null",
}


def read_peek(decoder: Decoder, body: Buffer) -> Any:
    """The endpoint's peek of a body, which no engine can read in another way.

    Raises:
        Refusal: 400, not JSON, a member of the wrong type, or one that is there twice.
    """
    try:
        peek = decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _explain(str(error)) from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise unparsable_body() from error
    names = _ACTED_ON.findall(body)
    is_escaped = body.find(b"\\") >= 0 and body.find(b"\\u00") >= 0  # one byte is found in no time
    if is_escaped or len(names) != len(set(names)) or len(body) > _LARGE_BYTES:
        _check_members(body)
    return peek


def _check_members(body: Buffer) -> None:
    """JSON does not say which of two members of one name counts, and parsers differ; with limits and models that matters.

    The search by text finds names inside messages and tools as well, so what it finds is no proof yet. A body that would
    take long to look through is refused too: no request has thousands of members, or half a million objects.

    Raises:
        Refusal: 400.
    """
    if body.count(b"{") + body.count(b"[") > _BRACKETS_MAX:
        raise invalid(f"The request holds more than {_BRACKETS_MAX} objects and arrays.")
    names = _ACTED_ON.findall(body)
    if len(names) == len(set(names)) and not _ESCAPED_LETTER.search(body) and body.count(b":") < _COLONS_MAX:
        return
    seen: set[str] = set()
    for member in islice(list_members(body), _MEMBERS_MAX + 1):
        if member.name in seen:
            name = member.name[:_METADATA_NAME_LENGTH_MAX]
            raise invalid(f"Duplicate parameter: '{name}'.", param=name, code="duplicate_parameter")
        seen.add(member.name)
    if len(seen) > _MEMBERS_MAX:
        raise invalid(f"The request has more than {_MEMBERS_MAX} parameters.", code="object_above_max_properties")


def _explain(text: str) -> Refusal:
    """A validation error in OpenAI's words."""
    if match := _WRONG_TYPE.match(text):
        path = match["path"]
        if not path:
            return unparsable_body()
        expected = match["expected"].split(" | ")[0]
        return invalid(
            f"Invalid type for '{path}': expected {_TYPE_NAMES.get(expected, expected)}, "
            f"but got {_TYPE_NAMES.get(match['got'], match['got'])} instead.",
            param=path,
            code="invalid_type",
        )
    if match := _OUT_OF_RANGE.match(text):
        return invalid(f"Invalid '{match['path']}': the number is out of range.", param=match["path"])
    return unparsable_body()


def check_common(peek: Peek) -> None:
    """What holds for every endpoint. The model comes first, as OpenAI's own checks do.

    Raises:
        Refusal: 400.
    """
    if not peek.model:
        raise invalid("you must provide a model parameter")
    if peek.stream_options and not peek.stream:
        raise invalid(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options"
        )
    if peek.n is not None:
        _check_range("n", peek.n, CHOICES_MAX)
    if peek.best_of is not None:
        _check_range("best_of", peek.best_of, CHOICES_MAX)
    for name, limit in peek.output_limits():
        if limit is not None:
            _check_range(name, limit, None)
    if peek.metadata is not None:
        _check_metadata(peek.metadata)


def _check_range(name: str, value: int, largest: int | None) -> None:
    if value < 1:
        raise invalid(
            f"Invalid '{name}': integer below minimum value. Expected a value >= 1, but got {value} instead.",
            param=name,
            code="integer_below_min_value",
        )
    if largest is not None and value > largest:
        raise invalid(
            f"Invalid '{name}': integer above maximum value. Expected a value <= {largest}, but got {value} instead.",
            param=name,
            code="integer_above_max_value",
        )


def _check_metadata(metadata: dict[str, Any]) -> None:
    if len(metadata) > _METADATA_ENTRIES_MAX:
        raise invalid(
            f"Invalid 'metadata': too many properties. Expected at most {_METADATA_ENTRIES_MAX}.",
            param="metadata",
            code="object_above_max_properties",
        )
    for name, value in metadata.items():
        if len(name) > _METADATA_NAME_LENGTH_MAX or (
            isinstance(value, str) and len(value) > _METADATA_VALUE_LENGTH_MAX
        ):
            raise invalid(
                "Invalid 'metadata': a name or value is too long.", param="metadata", code="string_above_max_length"
            )


def check_chat(peek: ChatPeek) -> None:
    """Raises: Refusal: 400."""
    check_common(peek)
    if peek.messages is None:
        raise invalid("Missing required parameter: 'messages'.", param="messages", code="missing_required_parameter")
    if not peek.messages:
        raise invalid(
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
            param="messages",
            code="empty_array",
        )


def check_completion(peek: CompletionPeek) -> None:
    """Raises: Refusal: 400."""
    check_common(peek)
    if peek.prompt is None:
        raise invalid("Missing required parameter: 'prompt'.", param="prompt", code="missing_required_parameter")


def check_embedding(peek: EmbeddingPeek) -> None:
    """Raises: Refusal: 400."""
    check_common(peek)
    if peek.input is UNSET:
        raise invalid("Missing required parameter: 'input'.", param="input", code="missing_required_parameter")


def check_response(peek: ResponsePeek) -> None:
    """Raises: Refusal: 400. What one replica would have to remember cannot be asked of a fleet."""
    check_common(peek)
    for name, value in (("previous_response_id", peek.previous_response_id), ("background", peek.background)):
        if value:
            raise invalid(f"Unsupported parameter: '{name}'.", param=name, code="unsupported_parameter")

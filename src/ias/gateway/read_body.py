"""Reads a request's body as far as the gateway acts on it, and refuses what engines could read in another way, or not at all."""

import re
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET

from ias.gateway.errors import Refusal, invalid, unparsable_body
from ias.gateway.json_splice import Buffer, list_members
from ias.gateway.peek import ChatPeek, CompletionPeek, Decoder, EmbeddingPeek, Peek, ResponsePeek

if TYPE_CHECKING:
    from ias.gateway.endpoints import Endpoint

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


class Reading:
    """What the gateway makes of a body: all but the wording of its prompt."""

    __slots__ = (
        "choices",
        "has_foreign_content",
        "has_policed",
        "model",
        "output_tokens",
        "peek",
        "prompt_at",
        "prompts",
        "replaces_template",
        "streamed",
        "uses_tools",
    )

    def __init__(self, body: Buffer, peek: Peek, output_limits: tuple[str, ...]) -> None:
        self.peek = peek
        self.model = peek.model or ""
        """The name that the client used: the model's own or an alias of it."""
        self.streamed = bool(peek.stream)
        self.prompts = _count_prompts(peek) if type(peek) is CompletionPeek else 1
        self.prompt_at = _find_prompt(body)
        self.choices = self.prompts * max(peek.n or 1, peek.best_of or 1)
        """Answers the engine makes: each may use all of the output limit."""
        self.output_tokens = _find_output_limit(peek, output_limits)
        self.has_foreign_content = _has_foreign_content(body, peek)
        """Whether there may be images, audio or files, whose tokens have nothing to do with the length of the body."""
        self.has_policed = peek.has_policed()
        self.uses_tools = peek.tools is not UNSET
        self.replaces_template = peek.chat_template is not UNSET or peek.prompt_embeds is not UNSET
        """Whether what the engine reads is nothing that could be told from the body."""


def read_body(body: Buffer, endpoint: "Endpoint") -> Reading:
    """Read a body as its endpoint asks.

    Raises:
        Refusal: 400.
    """
    if endpoint.decoder is None or endpoint.check is None:
        raise AssertionError("only an inference endpoint has bodies")
    peek = read_peek(endpoint.decoder, body)
    endpoint.check(peek)
    return Reading(body, peek, endpoint.output_limits)


def _find_prompt(body: Buffer) -> int:
    """Where the prompt begins: what stands before it differs between requests whose prompts do not."""
    for name in (b'"messages"', b'"prompt"', b'"input"'):
        at = body.find(name)
        if at >= 0:
            return at
    return 0


def _count_prompts(peek: CompletionPeek) -> int:
    """How many prompts one request holds: `/v1/completions` takes a list of them."""
    prompt = peek.prompt
    if isinstance(prompt, list) and prompt and bytes(memoryview(prompt[0])[:1]) in (b'"', b"["):
        return len(prompt)
    return 1


def _find_output_limit(peek: Peek, honoured: tuple[str, ...]) -> int | None:
    """The output limit the client set; the largest, where it set several: engines differ in which they prefer.

    A limit that engines do not know on this endpoint is none.
    """
    largest: int | None = None
    is_honoured = False
    for name, limit in peek.output_limits():
        if limit is not None:
            is_honoured = is_honoured or name in honoured
            if largest is None or limit > largest:
                largest = limit
    return largest if is_honoured else None


def _has_foreign_content(body: Buffer, peek: Peek) -> bool:
    """Searching a body costs 5 ns a byte, so it is done only where content may have parts at all."""
    if type(peek) is ChatPeek and peek.messages is not None:
        for message in peek.messages:
            if not message.is_text():
                break
        else:
            return False
    return b'_url"' in body or b'"input_' in body or b'"file"' in body


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

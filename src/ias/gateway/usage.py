"""Token counts as engines report them, in either of OpenAI's spellings."""

import msgspec


class TokenDetails(msgspec.Struct):
    """What `prompt_tokens_details` and `input_tokens_details` have in common."""

    cached_tokens: int | None = None


class ReportedUsage(msgspec.Struct):
    """`usage` of an answer or of a stream's event."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: TokenDetails | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: TokenDetails | None = None


class Answer(msgspec.Struct):
    """The one member of an unstreamed answer that is read."""

    usage: ReportedUsage | None = None


class StreamedChunk(msgspec.Struct):
    """The members of a stream's event that are read when it speaks of usage."""

    usage: ReportedUsage | None = None
    choices: list[msgspec.Raw] | None = None
    response: Answer | None = None

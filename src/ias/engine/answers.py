"""The bodies the engine answers with: OpenAI's, with vLLM's additions."""

import base64
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ias.engine.generation import Emission

Usage = dict[str, Any]


def make_usage(prompt_tokens: int, completion_tokens: int, cached_tokens: int) -> Usage:
    """Counts of a request so far."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    }


@dataclass(frozen=True, slots=True)
class Envelope:
    """What every body of one request repeats."""

    id: str
    kind: Literal["chat", "text"]
    created: int
    """Unix seconds."""
    model: str

    def opening(self, choices: int, usage: Usage | None) -> dict[str, Any]:
        """A chat stream's first chunk: the role of every choice."""
        delta = {"role": "assistant", "content": ""}
        return self._chunk([_stream_choice(index, {"delta": delta}) for index in range(choices)], usage)

    def chunk(self, emissions: Sequence[tuple[int, Emission]], usage: Usage | None) -> dict[str, Any]:
        """What one step adds."""
        choices = []
        for index, emission in emissions:
            said = {"delta": {"content": emission.text}} if self.kind == "chat" else {"text": emission.text}
            choices.append(
                _stream_choice(index, said, finish_reason=emission.finish_reason, stop_reason=emission.stop_reason)
            )
        return self._chunk(choices, usage)

    def usage_chunk(self, usage: Usage) -> dict[str, Any]:
        """The chunk after the last one, without choices."""
        return self._chunk([], usage)

    def whole(self, texts: Sequence[str], lasts: Sequence[Emission], usage: Usage) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        choices = []
        for index, (text, last) in enumerate(zip(texts, lasts, strict=True)):
            message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "tool_calls": []}
            said = {"message": message} if self.kind == "chat" else {"text": text}
            choices.append(
                {
                    "index": index,
                    **said,
                    "logprobs": None,
                    "finish_reason": last.finish_reason,
                    "stop_reason": last.stop_reason,
                }
            )
        kind = "chat.completion" if self.kind == "chat" else "text_completion"
        return {**self._head(kind), "choices": choices, "usage": usage}

    def _chunk(self, choices: list[dict[str, Any]], usage: Usage | None = None) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self.kind == "chat" else "text_completion"
        body = {**self._head(kind), "choices": choices}
        return body if usage is None else {**body, "usage": usage}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def _stream_choice(
    index: int, said: dict[str, Any], *, finish_reason: str | None = None, stop_reason: str | None = None
) -> dict[str, Any]:
    choice = {"index": index, **said, "logprobs": None, "finish_reason": finish_reason}
    return {**choice, "stop_reason": stop_reason} if finish_reason else choice


def make_embeddings(
    *,
    answer_id: str,
    model: str,
    created: int,
    vectors: Sequence[Sequence[float]],
    encoding_format: Literal["float", "base64"],
    prompt_tokens: int,
) -> dict[str, Any]:
    """The body of an embeddings answer; base64 is of little-endian 32-bit floats."""
    data = [
        {
            "index": index,
            "object": "embedding",
            "embedding": vector
            if encoding_format == "float"
            else base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode(),
        }
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens, "completion_tokens": 0}
    return {"id": answer_id, "object": "list", "created": created, "model": model, "data": data, "usage": usage}


def make_model(name: str, created: int, context_length: int) -> dict[str, Any]:
    """One entry of the list of models."""
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "vllm",
        "root": name,
        "parent": None,
        "max_model_len": context_length,
        "permission": [],
    }

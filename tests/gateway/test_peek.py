"""What a body says is the same for the gateway as for any engine behind it, or the body is refused."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ias.gateway.endpoints import CHAT_COMPLETIONS, RESPONSES
from ias.gateway.errors import Refusal
from ias.gateway.peek import ChatPeek
from ias.gateway.read_body import read_peek

DECODER = CHAT_COMPLETIONS.decoder
ACTED_ON = ["model", "messages", "stream", "stream_options", "n", "best_of", "max_tokens", "max_completion_tokens",
            "max_output_tokens", "prompt", "input", "background", "previous_response_id"]  # fmt: skip


def read(body: bytes) -> ChatPeek:
    assert DECODER is not None
    peek: ChatPeek = read_peek(DECODER, body)
    return peek


def escaped(name: str, at: int) -> str:
    at %= len(name)
    return f"{name[:at]}\\u{ord(name[at]):04x}{name[at + 1 :]}"


@pytest.mark.parametrize("name", ACTED_ON)
@pytest.mark.parametrize("space", ["", " ", "\t\r\n"])
def test_a_member_the_gateway_acts_on_may_be_there_once_only(name: str, space: str) -> None:
    text = f'{{"{name}"{space}:null, "x":1,"{name}":null}}'
    with pytest.raises(Refusal) as refusal:
        read(text.encode())
    assert (refusal.value.status, refusal.value.code, refusal.value.param) == (400, "duplicate_parameter", name)


@given(st.sampled_from(ACTED_ON), st.integers(0, 20), st.booleans())
def test_no_escape_hides_a_second_one(name: str, at: int, first: bool) -> None:
    names = [escaped(name, at), name] if first else [name, escaped(name, at)]
    with pytest.raises(Refusal) as refusal:
        read("{{{}}}".format(",".join(f'"{n}":null' for n in names)).encode())
    assert refusal.value.code == "duplicate_parameter"


@pytest.mark.parametrize(
    "text",
    [
        '{"messages":[{"content":"\\"model\\": \\"x\\", model","model":1,"n":2}],"model":"m","n":1}',
        '{"model":"m","messages":[{}],"tools":[{"n":1,"model":2,"messages":[{"stream":true}]}],"stream":false}',
        '{"model":"m","x":"model","y":["model","model"],"messages":[{"content":"caf\\u00e9 \\u0041"}]}',
        '{"model":"m","metadata":{"model":"a","prompt":"b","input":"c"},"messages":[{}],"temperature":1.0}',
    ],
)
def test_the_same_name_elsewhere_is_nobodys_business(text: str) -> None:
    assert read(text.encode()).model == "m"


@pytest.mark.parametrize(
    "body",
    [
        '{"model":"m","messages":[{}]}'.encode("utf-16"),
        '{"model":"m","messages":[{}]}'.encode("utf-32-le"),
        b'\xef\xbb\xbf{"model":"m","messages":[{}]}',
        b'{"model":"m","messages":[{}]} {"model":"x"}',
        b'{"model":"m","messages":[{}]}\x00',
        b'{"model":"m","messages":[{}],}',
        b'{"model":"m","messages":[{}],"n":NaN}',
        b'{"model":"m","messages":[{}],"x":Infinity}',
        b'{"model":"m",/**/"messages":[{}]}',
        b"{'model':'m','messages':[{}]}",
        b'{"model":"\\ud800","messages":[{}]}',
        b'{"model":"\xff","messages":[{}]}',
        b'{"model":"m","messages":[{}],"max_tokens":1e999}',
        b'{"model":"m","messages":[{}],"max_tokens":"5"}',
        b'{"model":"m","messages":[{}],"stream":1}',
        b'{"model":["m"],"messages":[{}]}',
    ],
)
def test_what_parsers_disagree_about_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal) as refusal:
        read(body)
    assert refusal.value.status == 400


@given(st.binary(max_size=60))
def test_garbage_is_refused_and_nothing_worse(garbage: bytes) -> None:
    for body in (garbage, b'{"model":"m","messages":[' + garbage + b"]}", b'{"model":"m",' + garbage + b"}"):
        with contextlib.suppress(Refusal):
            read(body)


def test_a_body_that_would_take_long_to_look_through_is_refused() -> None:
    many: list[Any] = [
        b'{"model":"m","messages":[{}],"x":[' + b"[]," * 600_000 + b"[]]}",
        json.dumps({"model": "m", "messages": [{}], **{f"x{i}": i for i in range(150_000)}}).encode(),
    ]
    for body in many:
        with pytest.raises(Refusal) as refusal:
            read(body)
        assert refusal.value.status == 400
    assert RESPONSES.decoder is not None
    large = json.dumps({"model": "m", "input": "word: {" * 60_000}).encode()
    assert read_peek(RESPONSES.decoder, large).model == "m"

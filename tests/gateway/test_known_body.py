"""A body told by its shape means what it means when all of it is read."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ias.gateway.endpoints import CHAT_COMPLETIONS
from ias.gateway.known_body import KnownBody
from ias.gateway.read_body import Reading, read_body
from tests.gateway.platform import RunningGateway
from tests.gateway.raw_client import ask, chat, connect, request_bytes
from tests.gateway.scripted_upstream import ScriptedUpstream

TEXTS = st.text(max_size=20) | st.sampled_from(['"model":"x"', '","stream":true,"a":"', "]", '\\"}],"n":9', "é", "\\"])
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "system"])}, optional={"content": TEXTS | st.none()}), min_size=1
)  # fmt: skip
OTHERS = st.fixed_dictionaries(
    {"model": st.sampled_from(["m", "n"])},
    optional={
        "stream": st.booleans(),
        "n": st.integers(1, 4),
        "max_tokens": st.integers(1, 9),
        "cache_salt": st.text(max_size=3),
        "tools": st.just([{"type": "function", "function": {"name": "f", "parameters": {"messages": [1]}}}]),
        "metadata": st.just({"messages": "x"}),
    },
)


def encode(others: dict[str, Any], messages: object, *, last: bool, spaced: bool) -> bytes:
    members = {**others, "messages": messages} if last else {"messages": messages, **others}
    return json.dumps(members, separators=None if spaced else (",", ":"), ensure_ascii=spaced).encode()


def read(body: bytes) -> Reading:
    return read_body(body, CHAT_COMPLETIONS)


def learn(body: bytes) -> KnownBody:
    known = KnownBody.learn(body, CHAT_COMPLETIONS)
    assert known is not None
    return known


def facts(reading: Reading) -> dict[str, Any]:
    names = [name for name in dir(Reading) if not name.startswith("_") and name != "peek"]
    return {name: getattr(reading, name) for name in names}


@given(OTHERS, MESSAGES, MESSAGES, st.booleans(), st.booleans())
def test_other_messages_of_text_do_not_change_what_a_body_says(
    others: dict[str, Any], before: object, now: object, last: bool, spaced: bool
) -> None:
    known = learn(encode(others, before, last=last, spaced=spaced))
    body = encode(others, now, last=last, spaced=spaced)
    assert known.fits(body)
    assert facts(known.reading) == facts(read(body))


@given(OTHERS, OTHERS, MESSAGES, MESSAGES, st.booleans())
def test_a_body_with_other_members_is_read_anew(
    before: dict[str, Any], now: dict[str, Any], some: object, others: object, last: bool
) -> None:
    known = learn(encode(before, some, last=last, spaced=False))
    body = encode(now, others, last=last, spaced=False)
    assert known.fits(body) == (list(before.items()) == list(now.items()))


@pytest.mark.parametrize(
    "between",
    [
        b'[{"content":"a"}],"stream":true,"x":[{"content":"b"}]',
        b'[{"content":"a"}],"messages":[{"content":"b"}]',
        b'[{"content":"a"}]}',
        b'[{"content":"a"}] ,"n":2',
        b"[]",
        b"[1]",
        b'"a"',
        b"",
        b'[{"content":"a"}',
        b'[{"content":[{"type":"image_url","image_url":{"url":"x"}}]}]',
        b'[{"content":5}]',
        b'[{"content":"\xff"}]',
        b'[{"content":"\\ud800"}]',
        b"[" * 100_000,
    ],
)
def test_nothing_but_messages_of_text_passes_for_them(between: bytes) -> None:
    known = learn(b'{"model":"m","messages":[{"content":"Hi"}],"max_tokens":5}')
    assert not known.fits(b'{"model":"m","messages":' + between + b',"max_tokens":5}')


def test_a_body_with_images_tells_the_shape_of_those_without() -> None:
    images = [{"content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    known = learn(encode({"model": "m"}, images, last=False, spaced=False))
    body = encode({"model": "m"}, [{"content": "Hi"}], last=False, spaced=False)
    assert known.fits(body)
    assert facts(known.reading) == facts(read(body))


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","messages":[{"content":"Hi"}],"x":"%b"}' % (b"y" * 20_000),
        b'{"model":"m","messages":[{"content":"%b"}]}' % (b"y" * 300_000),
        b'{"model":"m"}',
    ],
)
def test_large_bodies_and_those_without_messages_are_not_remembered(body: bytes) -> None:
    assert KnownBody.learn(body, CHAT_COMPLETIONS) is None


def test_what_is_remembered_keeps_no_messages() -> None:
    known = learn(b'{"model":"m","messages":[{"content":"%b"}]}' % (b"secret" * 10_000))
    assert "secret" not in repr(known.reading.peek)


BODIES: list[bytes] = [
    *(json.dumps(chat(messages=[{"role": "user", "content": text}], max_tokens=7)).encode() for text in ("a", "b", "c")),
    b'{"model": "m", "messages": [{"role": "user", "content": "d"}], "max_tokens": 9}',
    b'{"model": "m", "messages": [{"content": "e"}], "messages": [{"content": "f"}], "max_tokens": 7}',
    b'{"model": "m", "messages": [{"role": "user", "content": "g"}], "max_tokens": 7}',
    b'{"model": "m", "messages": [], "max_tokens": 7}',
    b'{"model": "m", "messages": [{"role": "user", "content": "h"}], "stream": true, "max_tokens": 7}',
    b'{"model": "m", "messages": [{"role": "user", "content": "i"}], "cache_salt": "x", "max_tokens": 7}',
    b'{"model": "m", "messages": [{"role": "user", "content": "j"}], "max_tokens": 7}',
    b'{"model": "n", "messages": [{"role": "user", "content": "k"}], "max_tokens": 7}',
    b'{"model": "m", "messages": [{"role": "user", "content": "l"}], "max_tokens": 7',
]  # fmt: skip


async def test_one_connection_is_answered_as_connections_of_their_own_would_be(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    key = gateway.pushed.key
    async with connect(gateway.port) as client:
        for body in BODIES * 2:
            await client.send(request_bytes(body, key=key))
            here, there = await client.read_answer(), await ask(gateway.port, body, key=key)
            assert (here.status, here.body) == (there.status, there.body), body
    sent = [received.body for received in upstream.received]
    assert sent[::2] == sent[1::2]
    served = await gateway.records(len(sent))
    assert [facts_of(record) for record in served[::2]] == [facts_of(record) for record in served[1::2]]


def facts_of(record: dict[str, Any]) -> tuple[Any, ...]:
    return record["model"], record["streamed"], record["cost_nano_usd"], record["decision"].get("output_tokens_max")

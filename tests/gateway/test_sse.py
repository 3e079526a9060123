"""Events come out the same, however the bytes were split on the way."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ias.gateway.chunked import ChunkedDecoder, ChunkedError
from ias.gateway.event_stream import LAST_CHUNK, EventStream, Rewrite
from ias.gateway.sse import Event, EventScanner, EventTooLargeError, format_event

TEXT = 'data: {"a": 1}\n\n: comment\n\ndata: x\ndata: y\n\nevent: e\nid: 3\nretry: 5\ndata:z 🙂 \u2028\u0085\n\n\n\ndata:\n\n'
EXPECTED = [Event(None, b'{"a": 1}'), Event(None, b"x\ny"), Event(b"e", "z 🙂 \u2028\u0085".encode())]


def scan(data: bytes, cuts: list[int]) -> list[Event]:
    scanner = EventScanner(1_000_000)
    events = []
    position = 0
    for cut in [*sorted(cuts), len(data)]:
        events += scanner.feed(data[position:cut])
        position = cut
    return events


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_every_single_split_point_gives_the_same_events(line_end: str) -> None:
    data = TEXT.replace("\n", line_end).encode()
    for cut in range(len(data) + 1):
        assert scan(data, [cut]) == EXPECTED


@given(cuts=st.lists(st.integers(0, len(TEXT.encode())), max_size=20), line_end=st.sampled_from(["\n", "\r\n", "\r"]))
def test_any_splits_give_the_same_events(cuts: list[int], line_end: str) -> None:
    data = ("\ufeff" + TEXT).replace("\n", line_end).encode()
    assert scan(data, [min(cut, len(data)) for cut in cuts]) == EXPECTED


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_garbage_gives_the_same_events_at_any_split(data: bytes, cuts: list[int]) -> None:
    assert scan(data, [min(cut, len(data)) for cut in cuts]) == scan(data, [])


def test_an_event_that_does_not_end_is_not_held_for_ever() -> None:
    scanner = EventScanner(100)
    with pytest.raises(EventTooLargeError):
        scanner.feed(b"data: " + b"x" * 200)


@given(
    st.lists(st.binary(min_size=1, max_size=40).filter(lambda d: b"\n" not in d and b"\r" not in d and d[:1] != b" "))
)
def test_what_is_formatted_is_scanned_back(datas: list[bytes]) -> None:
    events = [Event(None, data) for data in datas]
    assert scan(b"".join(format_event(event) for event in events), []) == events


# ------------------------------------------------------------------ chunked bodies


@given(
    parts=st.lists(st.binary(min_size=1, max_size=50), max_size=8),
    cuts=st.lists(st.integers(0, 600), max_size=10),
    trailer=st.sampled_from([b"", b"x: y\r\n"]),
)
def test_chunks_decode_the_same_at_any_split(parts: list[bytes], cuts: list[int], trailer: bytes) -> None:
    data = b"".join(b"%x;e=1\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n" + trailer + b"\r\n"
    decoder = ChunkedDecoder()
    payload = b""
    position = 0
    for cut in sorted({min(cut, len(data)) for cut in cuts} | {len(data)}):
        if position < cut:
            payload += decoder.feed(data[position:cut])
        position = cut
    assert payload == b"".join(parts)
    assert decoder.ended


@pytest.mark.parametrize(
    "data", [b"x\r\n", b"-1\r\n", b"3\r\nabcd\r\n", b"0x3\r\nabc\r\n", b" \r\n", b"1_0\r\n", b"0\r\n\r\nx"]
)
def test_broken_chunks_are_refused(data: bytes) -> None:
    with pytest.raises(ChunkedError):
        ChunkedDecoder().feed(data)


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_waits_for_more(data: bytes) -> None:
    try:
        ChunkedDecoder().feed(data)
    except ChunkedError:
        pass


# ------------------------------------------------------------------ streams


def make_stream(
    *, usage: bool = False, chunked: bool = True, public: str = "m", continuous: bool = False
) -> EventStream:
    return EventStream(
        Rewrite(client_wants_usage=usage, client_wants_continuous=continuous, upstream_model="m", public_model=public),
        framing="chunked",
        chunk_output=chunked,
        named_events=False,
        event_bytes_max=1_000_000,
    )


def frame(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def content(text: str, **more: object) -> bytes:
    return json.dumps(
        {"model": "m", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}], **more}
    ).encode()


EVENTS = [
    content("a"),
    content('🙂 "usage": {}'),
    content("b"),
    b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
]
USAGE = b'{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}'
WHOLE = (
    b"".join(frame(b"data: " + event + b"\n\n") for event in [*EVENTS, USAGE])
    + frame(b"data: [DONE]\n\n")
    + b"0\r\n\r\n"
)


def relay(stream: EventStream, data: bytes, cuts: list[int]) -> bytes:
    output = b""
    position = 0
    for cut in [*sorted({min(cut, len(data)) for cut in cuts}), len(data)]:
        if position < cut:
            output += stream.feed(data[position:cut])
        position = cut
    return output


def payload_of(output: bytes) -> bytes:
    decoder = ChunkedDecoder()
    payload = decoder.feed(output)
    assert decoder.ended
    return payload


@given(cuts=st.lists(st.integers(0, len(WHOLE)), max_size=12), usage=st.booleans(), chunked=st.booleans())
def test_a_stream_is_relayed_the_same_at_any_split(cuts: list[int], usage: bool, chunked: bool) -> None:
    stream = make_stream(usage=usage, chunked=chunked)
    output = relay(stream, WHOLE, cuts)
    payload = payload_of(output) if chunked else output
    expected = [*EVENTS, USAGE] if usage else EVENTS
    assert payload == b"".join(b"data: " + event + b"\n\n" for event in [*expected, b"[DONE]"])
    assert stream.usage is not None
    assert (stream.usage.input_tokens, stream.usage.output_tokens) == (7, 3)
    assert stream.events == len(EVENTS)
    assert stream.done
    assert stream.body_ended


def test_chunks_of_whole_events_are_forwarded_as_they_came() -> None:
    stream = make_stream()
    data = b"".join(frame(b"data: " + event + b"\n\n") for event in EVENTS[:1] * 3)
    assert stream.feed(data) is data


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
def test_garbage_never_breaks_the_relay(data: bytes, cuts: list[int]) -> None:
    stream = make_stream()
    try:
        relay(stream, data, cuts)
    except ValueError:
        pass
    stream.end_with_error(b"{}")
    assert stream.done


def test_continuous_usage_is_hidden_from_clients_that_did_not_ask() -> None:
    stream = make_stream()
    counted = content("a", usage={"prompt_tokens": 7, "completion_tokens": 1})
    output = stream.feed(frame(b"data: " + counted + b"\n\n"))
    assert b"usage" not in output
    assert stream.usage is not None
    assert stream.usage.output_tokens == 1


def test_continuous_usage_is_null_for_clients_that_asked_for_the_final_one() -> None:
    stream = make_stream(usage=True)
    output = stream.feed(frame(b"data: " + content("a", usage={"prompt_tokens": 7, "completion_tokens": 1}) + b"\n\n"))
    assert b'"usage": null' in output


def test_the_model_is_called_as_the_client_calls_it() -> None:
    stream = make_stream(public="alias")
    output = payload_of(relay(stream, WHOLE, []))
    first = json.loads(output.split(b"\n\n")[0].removeprefix(b"data: "))
    assert first["model"] == "alias"


# ------------------------------------------------------------------ usage in every event

CONTENT = {
    "id": "c",
    "object": "chat.completion.chunk",
    "choices": [{"index": 0, "delta": {"content": ',"usage":{}}'}}],
}
COUNTS = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}


@pytest.mark.parametrize("wants", ["nothing", "usage", "continuous"])
@pytest.mark.parametrize(
    "usage", [COUNTS, {**COUNTS, "prompt_tokens_details": None}, {"total_tokens": 10, **COUNTS}, None]
)
@pytest.mark.parametrize("order", ["last", "first"])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_usage_in_content_events_is_shown_as_asked_for_wherever_it_stands(
    wants: str, usage: dict[str, object] | None, order: str, separators: tuple[str, str]
) -> None:
    document = {**CONTENT, "usage": usage} if order == "last" else {"usage": usage, **CONTENT}
    data = b"data: %b\n\n" % json.dumps(document, separators=separators).encode()
    stream = EventStream(
        Rewrite(
            client_wants_usage=wants != "nothing",
            client_wants_continuous=wants == "continuous",
            upstream_model="m",
            public_model="m",
        ),
        framing="close",
        chunk_output=False,
        named_events=False,
        event_bytes_max=10_000,
    )
    shown = json.loads(stream.feed(data).removeprefix(b"data: "))
    expected = dict(CONTENT)
    if wants == "usage":
        expected["usage"] = None
    elif wants == "continuous":
        expected["usage"] = usage
    assert shown == expected
    if usage is None:
        assert stream.usage is None
    else:
        assert stream.usage is not None
        assert (stream.usage.input_tokens, stream.usage.output_tokens) == (7, 3)
        assert stream.usage.cached_input_tokens == (2 if usage["prompt_tokens_details"] else 0)
    assert stream.events == 1


def begun() -> EventStream:
    stream = make_stream()
    stream.feed(frame(b'data: {"id":"1","choices":[]}\n\n'))
    return stream


@pytest.mark.parametrize("length", [0, 1, 20, 236, 237, 1006, 1007, 1008, 1009, 5000])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_usual_events_pass_at_a_glance(length: int, count: int) -> None:
    data = frame(b'data: {"id":"%b"}\n\n' % (b"x" * length)) * count
    stream = begun()
    assert stream._plain_length(data) == len(data)
    assert stream._plain_length(data + data[:-1]) == len(data) * 2 - len(data) // count
    assert stream.events == 1 + count + count * 2 - 1


def test_many_events_in_a_chunk_pass_at_a_glance() -> None:
    data = frame(b'data: {"id":"1"}\n\ndata: {"id":"2"}\n\n')
    stream = begun()
    assert stream._plain_length(data + data) == len(data) * 2
    assert stream.events == 1 + 4


@given(
    st.lists(st.integers(0, 400).map(lambda n: frame(b'data: {"id":"%b"}\n\n' % (b"x" * n))), max_size=4).map(b"".join),
    st.lists(
        st.tuples(st.floats(0, 1), st.sampled_from([b"", b"\n", b"\r\n", b'"usage"', b"x", b"0", b"}"])), max_size=3
    ),
)
def test_what_passes_at_a_glance_is_what_the_thorough_way_would_send(
    data: bytes, inserted: list[tuple[float, bytes]]
) -> None:
    for where, what in inserted:
        at = int(where * len(data))
        data = data[:at] + what + data[at:]
    quick, thorough = begun(), begun()
    plain = quick._plain_length(data)
    if plain:
        assert thorough._feed_thoroughly(data[:plain]) == data[:plain]
        assert (quick.events, quick.usage) == (thorough.events, thorough.usage)
        following = frame(b'data: {"id":"2"}\n\n') + frame(b"data: [DONE]\n\n") + LAST_CHUNK
        assert quick.feed(following) == thorough.feed(following)

"""HTTP/1.1 at its edges, and clients that misbehave. Numbers are those of the list in README.md."""

import asyncio
import gzip
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gateway.conftest import StartGateway
from tests.gateway.platform import Pushed, RunningGateway, backends, budget, until
from tests.gateway.raw_client import RawClient, ask, chat, connect, request_bytes
from tests.gateway.scripted_upstream import Received, ScriptedUpstream, Session, answer_politely, chunk, completion


def chunked(body: bytes, size: int = 7) -> bytes:
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


async def test_49_a_half_closed_client_is_still_answered(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    async def slowly(received: Received, session: Session) -> None:
        await asyncio.sleep(0.3)
        await answer_politely(received, session)

    upstream.script = slowly
    for stream in (False, True):
        async with connect(gateway.port) as client:
            await client.send(request_bytes(chat(stream=stream), key=gateway.pushed.key))
            client.writer.write_eof()
            answer = await client.read_answer()
            while answer.status == 100:
                answer = await client.read_answer()
            assert answer.status == 200
            assert await client.is_closed()


async def test_50_a_slow_reader_pauses_its_backend_and_nobody_else(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    sent = 0

    async def flood(received: Received, session: Session) -> None:
        nonlocal sent
        if not received.document.get("stream"):
            await session.send_json(completion())
            return
        await session.begin_stream()
        event = json.dumps(chunk("x" * 50_000)).encode()
        for _ in range(1000):
            await session.chunk(b"data: " + event + b"\n\n")
            sent += 1
        await session.event(chunk(finish="stop"))
        await session.end_stream()

    upstream.script = flood
    async with connect(gateway.port, buffer_bytes=65_536) as client:
        await client.send(request_bytes(chat(stream=True), key=gateway.pushed.key))
        await client.read_head()
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.3)
            assert (await ask(gateway.port, chat(), key=gateway.pushed.key)).status == 200
        assert sent < 1000
        assert max(c._transport.get_write_buffer_size() for c in gateway.worker.connections) < 1_000_000
        total = sum([len(part) async for part in client.read_chunks()])
        assert total > 50_000_000
    await gateway.until_nothing_is_held()


async def test_50_a_reader_that_takes_nothing_is_cut_off(
    start_gateway: StartGateway, pushed: Pushed, upstream: ScriptedUpstream
) -> None:
    async def flood(_: Received, session: Session) -> None:
        await session.begin_stream()
        while True:
            await session.event(chunk("x" * 50_000))

    upstream.script = flood
    await pushed.everything(upstream.url)
    await pushed.budgets(budget(10**15))
    gateway = await start_gateway(gateway_write_timeout_s=0.3)
    await gateway.until_ready()
    async with connect(gateway.port, buffer_bytes=65_536) as client:
        await client.send(request_bytes(chat(stream=True), key=pushed.key))
        await until(lambda: len(gateway.worker.connections) == 1)
        await until(lambda: not gateway.worker.connections)
    await until(lambda: upstream.open_sessions == 0)
    await gateway.until_nothing_is_held()


async def test_54_a_chunked_body(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    body = json.dumps(chat()).encode()
    async with connect(gateway.port) as client:
        await client.send(
            request_bytes(key=gateway.pushed.key, headers={"transfer-encoding": "chunked"}) + chunked(body)
        )
        assert (await client.read_answer()).status == 200
    assert upstream.received[0].body == body


async def test_55_continue_is_said_to_known_clients_only(gateway: RunningGateway) -> None:
    body = json.dumps(chat()).encode()
    headers = {"expect": "100-continue", "content-length": str(len(body))}
    async with connect(gateway.port) as client:
        await client.send(request_bytes(key=gateway.pushed.key, headers=headers))
        assert (await client.read_answer()).status == 100
        await client.send(body)
        assert (await client.read_answer()).status == 200
    async with connect(gateway.port) as client:
        await client.send(request_bytes(key="wrong", headers=headers))
        assert (await client.read_answer()).status == 401
        assert await client.is_closed()
    async with connect(gateway.port) as client:
        too_large = {**headers, "content-length": "40000000"}
        await client.send(request_bytes(key=gateway.pushed.key, headers=too_large))
        assert (await client.read_answer()).status == 413  # without asking for the body
        assert await client.is_closed()


async def test_56_a_gzipped_body_and_a_bomb(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    body = json.dumps(chat()).encode()
    port, key = gateway.port, gateway.pushed.key
    assert (await ask(port, gzip.compress(body), key=key, headers={"content-encoding": "gzip"})).status == 200
    assert upstream.received[0].body == body
    bomb = gzip.compress(b"x" * 40_000_000)
    assert (await ask(port, bomb, key=key, headers={"content-encoding": "gzip"})).status == 413
    for broken in (body, gzip.compress(body)[:-4]):
        assert (await ask(port, broken, key=key, headers={"content-encoding": "gzip"})).status == 400
    answer = await ask(port, body, key=key, headers={"content-encoding": "br"})
    assert (answer.status, answer.error["type"]) == (415, "invalid_request_error")


@pytest.mark.parametrize("stream", [False, True])
async def test_57_http_1_0_gets_an_answer_that_ends_with_the_connection(gateway: RunningGateway, stream: bool) -> None:
    async with connect(gateway.port) as client:
        await client.send(request_bytes(chat(stream=stream), key=gateway.pushed.key, version="1.0"))
        answer = await client.read_answer()
        assert answer.status == 200
        assert "transfer-encoding" not in answer.headers
        assert await client.is_closed()
        if stream:
            assert answer.text == "Hello"


async def test_58_the_connection_survives_refusals(gateway: RunningGateway) -> None:
    async with connect(gateway.port) as client:
        for body, key, status in [
            (chat(), None, 401),
            (chat(), "wrong", 401),
            (b"{", gateway.pushed.key, 400),
            (chat(model="x"), gateway.pushed.key, 404),
            (chat(), gateway.pushed.key, 200),
        ]:
            request = request_bytes(body, key=key)
            head, _, rest = request.partition(b"\r\n\r\n")
            await client.send(head + b"\r\n\r\n")  # the body comes late: it is drained
            await asyncio.sleep(0.02)
            await client.send(rest)
            assert (await client.read_answer()).status == status


async def test_58_the_connection_survives_a_backends_error(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    async def fail_once(received: Received, session: Session) -> None:
        if len(upstream.received) == 1:
            await session.send_json({"error": {"message": "no"}}, status=500)
        else:
            await answer_politely(received, session)

    upstream.script = fail_once
    async with connect(gateway.port) as client:
        for status in (500, 200):
            await client.send(request_bytes(chat(), key=gateway.pushed.key))
            assert (await client.read_answer()).status == status


async def test_59_pipelined_requests_are_answered_in_order(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    async def echo(received: Received, session: Session) -> None:
        await session.send_json({**completion(), "id": received.document["user"]})

    upstream.script = echo
    requests = [request_bytes(chat(user=str(i)), key=gateway.pushed.key) for i in range(60)]
    async with connect(gateway.port) as client:
        await client.send(b"".join(requests))
        assert [(await client.read_answer()).document["id"] for _ in requests] == [str(i) for i in range(60)]


async def test_60_twenty_megabytes_of_image(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 20_000_000}}
    body = json.dumps(chat(messages=[{"role": "user", "content": [image]}])).encode()
    assert (await ask(gateway.port, body, key=gateway.pushed.key)).status == 200
    assert upstream.received[0].body == body


async def test_62_63_head_and_options(gateway: RunningGateway, start_gateway: StartGateway) -> None:
    answer = await ask(gateway.port, key=gateway.pushed.key, method="HEAD", path="/v1/models")
    assert answer.status == 200
    assert int(answer.headers["content-length"]) > 0
    browser = {"origin": "https://app.example", "access-control-request-headers": "authorization, x-stainless-lang"}
    closed = await ask(gateway.port, method="OPTIONS", headers=browser)
    assert "access-control-allow-origin" not in closed.headers
    open_gateway = await start_gateway(gateway_cors_origins=("https://app.example",))
    await open_gateway.until_ready()
    answer = await ask(open_gateway.port, method="OPTIONS", headers=browser)
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert answer.headers["access-control-allow-headers"] == "authorization, x-stainless-lang"
    for key in (None, open_gateway.pushed.key):  # 63: errors and streams as well
        answer = await ask(open_gateway.port, chat(stream=True), key=key, headers={"origin": "https://app.example"})
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        exposed = answer.headers["access-control-expose-headers"].split(", ")
        assert {"x-request-id", "x-ratelimit-remaining-tokens", "retry-after-ms"} <= set(exposed)
    answer = await ask(open_gateway.port, chat(), headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers


async def test_64_a_trailing_slash_does_not_matter(gateway: RunningGateway) -> None:
    assert (await ask(gateway.port, chat(), key=gateway.pushed.key, path="/v1/chat/completions/")).status == 200
    assert (await ask(gateway.port, chat(), key=gateway.pushed.key, path="/v1/chat/completions?x=1")).status == 200


@pytest.mark.parametrize("path", ["/chat/completions", "/chat/completions/", "/openai/v1/chat/completions"])
async def test_65_other_base_urls_are_understood(
    gateway: RunningGateway, upstream: ScriptedUpstream, path: str
) -> None:
    assert (await ask(gateway.port, chat(), key=gateway.pushed.key, path=path)).status == 200
    assert upstream.received[0].path == "/v1/chat/completions"
    for listing in ("/models", "/models/m", "/openai/v1/models/m/"):
        answer = await ask(gateway.port, method="GET", path=listing, key=gateway.pushed.key)
        assert answer.status == 200
        assert answer.document.get("data", [answer.document])[0]["id"] == "m"


@pytest.mark.parametrize(
    "path",
    [
        "//v1//chat/completions",
        "/v1/v1/chat/completions",
        "/v1/chat/completions/x",
        "/v1/metrics",
        "/metrics",
        "/chat/completionsx",
        "/openai/deployments/m",
        "/openai/deployments//chat/completions",
        "/openai/deployments/m/images/generations",
        "/v1/fine_tuning/jobs",
    ],
)
async def test_65_a_url_that_is_none_is_404_in_json(gateway: RunningGateway, path: str) -> None:
    answer = await ask(gateway.port, chat(), key=gateway.pushed.key, path=f"{path}?x=1")
    assert (answer.status, answer.error["type"], answer.error["code"]) == (404, "invalid_request_error", None)
    assert answer.error["message"] == f"Invalid URL (POST {path})"


AZURE_PATHS = [
    ("/openai/deployments/meta%2Fllama%20%C3%A9/chat/completions", "/v1/chat/completions"),
    ("/openai/deployments/meta/llama%20%c3%a9/chat/completions/", "/v1/chat/completions"),
    ("/openai/deployments/meta%2Fllama%20%C3%A9/completions", "/v1/completions"),
    ("/openai/deployments/meta%2Fllama%20%C3%A9/embeddings", "/v1/embeddings"),
]


@pytest.mark.parametrize("body", [b'{%b"x":1.50}', b'{"model":"other",%b"x":1.50}'])
@pytest.mark.parametrize(("path", "upstream_path"), AZURE_PATHS)
async def test_77_azures_paths_name_the_model(
    gateway: RunningGateway, upstream: ScriptedUpstream, path: str, upstream_path: str, body: bytes
) -> None:
    name = "meta/llama é"
    await gateway.pushed.routes({name: {"backends": backends(upstream.url, upstream_model=name)}, "other": {}})
    await gateway.pushed.prices(name)
    snapshots = gateway.worker.gateway.snapshots
    await until(lambda: snapshots.prices is not None and name in snapshots.prices.prices)
    rest = b'"messages":[{"role":"user","content":"Hi"}],"prompt":"Hi","input":"Hi",'
    answer = await ask(
        gateway.port, body % rest, path=f"{path}?api-version=2024-10-21", headers={"api-key": gateway.pushed.key}
    )
    assert answer.status == 200
    (received,) = upstream.received
    assert received.path == upstream_path
    assert received.body == b'{"model":"%b",%b"x":1.50}' % (name.encode(), rest)
    (record,) = await gateway.records(1)
    assert (record["model"], record["endpoint"]) == (name, upstream_path)


async def test_77_azures_paths_refuse_as_the_others_do(gateway: RunningGateway) -> None:
    path, key = "/openai/deployments/m/chat/completions?api-version=1", gateway.pushed.key
    for body, status in [(b"", 400), (b"[]", 400), (b"{", 400), (b"{}", 400), (chat(), 200)]:
        assert (await ask(gateway.port, body, path=path, key=key)).status == status
    assert (await ask(gateway.port, chat(), path=path)).status == 401
    answer = await ask(gateway.port, chat(), path=path.replace("/m/", "/x/"), key=key)
    assert (answer.status, answer.error["code"]) == (404, "model_not_found")
    assert (await ask(gateway.port, method="GET", path=path, key=key)).headers["allow"] == "POST, OPTIONS"


@pytest.mark.parametrize("content_type", ["", "text/json", "application/json; charset=utf-8"])
async def test_67_the_content_type_does_not_matter(
    gateway: RunningGateway, upstream: ScriptedUpstream, content_type: str
) -> None:
    body = json.dumps(chat()).encode()
    headers = {"content-length": str(len(body)), **({"content-type": content_type} if content_type else {})}
    async with connect(gateway.port) as client:
        await client.send(request_bytes(key=gateway.pushed.key, headers=headers) + body)
        assert (await client.read_answer()).status == 200
    assert upstream.received[0].headers["content-type"] == "application/json"


BODIES = [
    b'{"model":"m","messages":[{"role":"user","content":"\\u00e9 \xc3\xa9"}],"zzz":{"a":1.50,"b":1e3},"top_k":-1, "x" : [ ]}',
    b'{"messages":[{}],"stop":null,"tools":null,"n":null,"stream":null,"model":"m","seed":99999999999999999999}',
]


@pytest.mark.parametrize("body", BODIES)
async def test_70_71_72_what_need_not_change_reaches_the_backend_byte_for_byte(
    gateway: RunningGateway, upstream: ScriptedUpstream, body: bytes
) -> None:
    assert (await ask(gateway.port, body, key=gateway.pushed.key)).status == 200
    assert upstream.received[0].body == body


async def test_controls_over_the_engine_are_taken_out(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    body = b'{"cache_salt":"x","model":"m", "priority":-5,"messages":[{}],"kv_transfer_params":{"a":[1]},"request_id":"r","t":1}'
    assert (await ask(gateway.port, body, key=gateway.pushed.key)).status == 200
    assert upstream.received[0].document == {"model": "m", "messages": [{}], "t": 1}


async def test_73_too_large_a_head_is_431(gateway: RunningGateway) -> None:
    answer = await ask(gateway.port, chat(), key=gateway.pushed.key, headers={"x-large": "a" * 70_000})
    assert (answer.status, answer.error["type"]) == (431, "invalid_request_error")


@pytest.mark.parametrize(
    "headers",
    [
        b"content-length: 3\r\ntransfer-encoding: chunked\r\n",
        b"transfer-encoding: chunked\r\ncontent-length: 3\r\n",
        b"content-length: 3\r\ncontent-length: 3\r\n",
        b"content-length: 3\r\ncontent-length: 4\r\n",
        b"content-length: +3\r\n",
        b"transfer-encoding: gzip, chunked\r\n",
        b"transfer-encoding: chunked, identity\r\n",
        b"transfer-encoding : chunked\r\n",
        b"a: b\r\n c\r\n",
        b"a: \x00\r\n",
        b"a: b\nc: d\r\n",
    ],
)
async def test_74_what_could_be_read_in_two_ways_is_refused_and_the_connection_closed(
    gateway: RunningGateway, upstream: ScriptedUpstream, headers: bytes
) -> None:
    request = b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\n" + headers + b"\r\nabc"
    async with connect(gateway.port) as client:
        await client.send(request + request_bytes(chat(), key=gateway.pushed.key))
        answer = await client.read_answer()
        assert answer.status == 400
        assert answer.error["type"] == "invalid_request_error"
        assert answer.headers["connection"] == "close"
        assert await client.is_closed()
    assert upstream.received == []


@pytest.mark.parametrize("hosts", [b"", b"host: a\r\nhost: b\r\n", b"host: g\r\nHOST: g\r\n"])
async def test_a_request_without_one_host_is_refused(gateway: RunningGateway, hosts: bytes) -> None:
    async with connect(gateway.port) as client:
        await client.send(b"GET /v1/models HTTP/1.1\r\n" + hosts + b"\r\n")
        answer = await client.read_answer()
        assert (answer.status, answer.error["message"]) == (400, "A request needs one Host header.")
        assert await client.is_closed()


async def test_a_body_that_comes_byte_by_byte_is_given_up(
    start_gateway: StartGateway, pushed: Pushed, upstream: ScriptedUpstream
) -> None:
    await pushed.everything(upstream.url)
    gateway = await start_gateway(gateway_body_timeout_s=1.0)
    await gateway.until_ready()
    async with connect(gateway.port) as client:
        await client.send(request_bytes(key=pushed.key, headers={"content-length": "100000"}))
        dribbling = asyncio.create_task(_dribble(client))
        try:
            async with asyncio.timeout(30):
                assert (await client.read_answer()).status == 408
        finally:
            dribbling.cancel()


async def _dribble(client: RawClient) -> None:
    while True:
        await client.send(b" ")
        await asyncio.sleep(0.05)


async def test_slow_heads_bodies_and_idle_connections_are_ended(
    start_gateway: StartGateway, pushed: Pushed, upstream: ScriptedUpstream
) -> None:
    await pushed.everything(upstream.url)
    gateway = await start_gateway(gateway_header_timeout_s=0.3, gateway_body_timeout_s=0.3, gateway_keepalive_s=0.3)
    await gateway.until_ready()
    async with connect(gateway.port) as client:
        await client.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost:")
        assert (await client.read_answer()).status == 408
        assert await client.is_closed()
    async with connect(gateway.port) as client:
        await client.send(request_bytes(key=pushed.key, headers={"content-length": "100"}) + b"{")
        assert (await client.read_answer()).status == 408
        assert await client.is_closed()
    async with connect(gateway.port) as client:
        assert await client.is_closed()
    async with connect(gateway.port) as client:
        await client.send(request_bytes(chat(), key=pushed.key))
        assert (await client.read_answer()).status == 200
        assert await client.is_closed()


async def test_82_92_models_are_listed_and_found_by_names_with_slashes(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    await gateway.pushed.routes({"meta/llama:8b é": {}, "m": {}, "hidden": {}})
    await gateway.pushed.api_key(models=("meta/llama:8b é", "m", "absent"))
    snapshots = gateway.worker.gateway.snapshots
    await until(lambda: snapshots.routes is not None and snapshots.routes.version == 2)
    key, port = gateway.pushed.key, gateway.port
    listed = (await ask(port, method="GET", path="/v1/models", key=key)).document
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["m", "meta/llama:8b é"]
    for path in ("meta/llama:8b%20%C3%A9", "meta%2Fllama%3A8b%20%c3%a9"):
        found = (await ask(port, method="GET", path=f"/v1/models/{path}", key=key)).document
        assert found["id"] == "meta/llama:8b é"
        assert {"id", "object", "created", "owned_by"} <= set(found)
    for name, status in (("hidden", 403), ("absent", 404), ("x", 404)):
        answer = await ask(port, method="GET", path=f"/v1/models/{name}", key=key)
        assert (answer.status, answer.error["code"]) == (status, "model_not_found")
    assert (await ask(port, method="GET", path="/v1/models")).status == 401


@pytest.mark.parametrize("is_escaped", [False, True])
async def test_82_a_model_in_a_body_may_have_any_name(
    gateway: RunningGateway, upstream: ScriptedUpstream, is_escaped: bool
) -> None:
    name = "meta/llama:8b é漢🙂"
    await gateway.pushed.routes({name: {"backends": backends(upstream.url, upstream_model=name)}})
    await gateway.pushed.prices(name)
    snapshots = gateway.worker.gateway.snapshots
    await until(lambda: snapshots.prices is not None and name in snapshots.prices.prices)
    body = json.dumps(chat(model=name), ensure_ascii=is_escaped).encode()
    assert (await ask(gateway.port, body, key=gateway.pushed.key)).status == 200
    assert upstream.received[0].body == body
    assert (await gateway.records(1))[0]["model"] == name


async def test_83_another_orgs_model_is_answered_like_an_unknown_one(gateway: RunningGateway) -> None:
    await gateway.pushed.routes({"m": {}, "hidden": {"org_ids": ("org-2",)}})
    snapshots = gateway.worker.gateway.snapshots
    await until(lambda: snapshots.routes is not None and snapshots.routes.version == 2)
    forbidden, unknown = [
        await ask(gateway.port, chat(model=name), key=gateway.pushed.key) for name in ("hidden", "absent")
    ]
    assert forbidden.status == unknown.status == 404
    assert forbidden.body.replace(b"hidden", b"absent") == unknown.body
    assert set(forbidden.headers) == set(unknown.headers)


async def test_88_every_refusal_has_a_request_id(gateway: RunningGateway) -> None:
    key = gateway.pushed.key
    large: dict[str, str] = {"x-large": "a" * 70_000}
    answers = [
        await ask(gateway.port, chat(model="x"), key=key),
        await ask(gateway.port, chat(), key=key, path="/v1/x"),
        await ask(gateway.port, key=key, method="GET"),
        await ask(gateway.port, key=key, headers={"content-length": "40000000"}),
        await ask(gateway.port, chat(), key=key, headers=large),
        await ask(gateway.port, key=key, headers={"transfer-encoding": "gzip"}),
        await ask(gateway.port, key=key, method="OPTIONS"),
    ]
    assert [answer.status for answer in answers] == [404, 404, 405, 413, 431, 400, 200]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(ids)) == len(ids)
    assert all(i.startswith("req_") for i in ids)
    assert all("openai-processing-ms" in answer.headers for answer in answers)


async def test_88_request_ids_are_unique_and_the_gateways_own(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    answers = [
        await ask(gateway.port, body, key=key, headers={"x-request-id": "mine"})
        for body, key in [
            (chat(), gateway.pushed.key),
            (chat(), None),
            (b"{", gateway.pushed.key),
            (chat(stream=True), gateway.pushed.key),
        ]
    ]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(ids)) == 4
    assert all(i.startswith("req_") for i in ids)
    assert upstream.received[0].headers["x-request-id"] == ids[0].removeprefix("req_")
    assert "mine" not in json.dumps([r.headers for r in upstream.received])


async def test_89_nothing_of_either_side_leaks_to_the_other(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    async def chatty(_: Received, session: Session) -> None:
        await session.send_json(completion(), headers="server: uvicorn\r\nset-cookie: a=b\r\nx-internal: 10.0.0.1\r\n")

    upstream.script = chatty
    headers = {"cookie": "c=d", "proxy-authorization": "x", "connection": "x-hop", "x-hop": "1"}
    answer = await ask(gateway.port, chat(), key=gateway.pushed.key, headers=headers)
    assert not {"server", "set-cookie", "x-internal"} & set(answer.headers)
    assert not {"cookie", "proxy-authorization", "x-hop", "authorization"} & set(upstream.received[0].headers)


@pytest.mark.parametrize("stream", [False, True])
async def test_93_draining_finishes_what_runs_and_refuses_what_comes(
    gateway: RunningGateway, upstream: ScriptedUpstream, stream: bool
) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(received: Received, session: Session) -> None:
        arrived.set()
        await go_on.wait()
        await answer_politely(received, session)

    upstream.script = slowly
    async with connect(gateway.port) as idle, connect(gateway.port) as client:
        await client.send(request_bytes(chat(stream=stream), key=gateway.pushed.key))
        await arrived.wait()
        draining = asyncio.create_task(gateway.worker.drain())
        assert await idle.is_closed()
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", gateway.port)
        go_on.set()
        answer = await client.read_answer()
        assert answer.status == 200
        if stream:
            assert answer.text == "Hello"
        assert await client.is_closed()
        await draining


async def test_93_a_stream_past_the_drain_deadline_ends_with_an_error(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    async def endless(_: Received, session: Session) -> None:
        await session.begin_stream()
        await session.event(chunk("a"))
        await session.wait_closed_by_peer()

    upstream.script = endless
    async with connect(gateway.port) as client:
        await client.send(request_bytes(chat(stream=True), key=gateway.pushed.key))
        reading = asyncio.create_task(client.read_answer())
        await until(lambda: gateway.worker.gateway.upstreams.in_flight == 1)
        await asyncio.sleep(0.1)
        await gateway.worker.drain()
        answer = await reading
        assert answer.chunks[-1]["error"]["code"] == "draining"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_garbage_and_any_split_never_crash_or_mix_answers(gateway: RunningGateway, data: Any) -> None:
    request = request_bytes(chat(), key=gateway.pushed.key) * 2
    garbage = data.draw(st.binary(max_size=60))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(request)), max_size=4)))
    async with connect(gateway.port) as client:
        position = 0
        for cut in [*cuts, len(request)]:
            await client.send(request[position:cut])
            position = cut
            await asyncio.sleep(0)
        await client.send(garbage)
        for _ in range(2):
            answer = await client.read_answer()
            assert answer.status == 200
            assert answer.document == completion()
    assert (await ask(gateway.port, method="GET", path="/health")).status == 200

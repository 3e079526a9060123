"""What never reaches an app is refused as a problem, too."""

import asyncio
import json
import socket

import uvicorn

from ias.cli.http_protocol import ProblemProtocol


async def app(scope: object, receive: object, send: object) -> None:
    raise AssertionError("never asked")


async def test_a_method_that_is_not_known_is_a_problem_with_a_request_id():
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=ProblemProtocol, lifespan="off", log_level="critical")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"NONSENSE / HTTP/1.1\r\nhost: x\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        server.should_exit = True
        await serving
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/problem+json" in head
    assert b"x-request-id: req_" in head
    assert json.loads(body)["type"] == "urn:ias:problem:bad_request"

"""`ias reconcile` says what differs, and its exit status says whether anything does."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from click.testing import CliRunner

from ias.cli.reconcile import reconcile

DIFFERENCE = {
    "check": "counters",
    "org_id": "o",
    "subject": "budget b total",
    "expected": {"spent_nano_usd": 5},
    "found": {"spent_nano_usd": 3},
    "missing": ["req_1"],
    "unknown": [],
    "repaired": True,
}
RUN: dict[str, Any] = {"start": "a", "end": "b", "differences": [], "skipped": []}

Serve = Callable[[int, dict[str, Any]], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[HTTPServer] = []

    def start(status: int, document: dict[str, Any]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                assert asked == {"hours": 2, "repair": True}
                assert self.headers["authorization"] == "Bearer t"
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(document).encode())

            def log_message(self, *arguments: Any) -> None:
                pass

        servers.append(HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def run(url: str) -> Any:
    return CliRunner(env={"IAS_TOKEN": "t"}).invoke(reconcile, ["--url", url, "--hours", "2", "--repair"])


@pytest.mark.parametrize(
    ("found", "status", "says"),
    [
        ({}, 0, "no differences from a to b\n"),
        (
            {"differences": [DIFFERENCE]},
            1,
            "counters: org o, budget b total: spent_nano_usd 5 ≠ 3, repaired\n  missing req_1\n",
        ),
        (
            {"skipped": ["counters: Redis is away"]},
            3,
            "not compared: counters: Redis is away\nno differences from a to b\n",
        ),
    ],
)
def test_what_was_found_is_said_and_decides_the_exit_status(
    serve: Serve, found: dict[str, Any], status: int, says: str
) -> None:
    result = run(serve(201, RUN | found))
    assert (result.exit_code, result.output) == (status, says)


def test_what_billing_refuses_is_one_line(serve: Serve) -> None:
    result = run(serve(403, {"detail": "This needs `ledger:adjust`."}))
    assert result.exit_code == 1
    assert "answered 403: This needs `ledger:adjust`." in result.output


def test_a_billing_that_is_away_is_another_status() -> None:
    assert run("http://127.0.0.1:1").exit_code == 3

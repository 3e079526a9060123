"""What is printed can be pasted as it stands."""

import ast
import json
import shlex
from pathlib import Path

from ias.local.connection import Connection
from ias.local.greeting import curl_snippet, python_snippet, render_greeting

CONNECTION = Connection(
    gateway_metrics_url="http://127.0.0.1:1/metrics",
    gateway_url="http://127.0.0.1:9000",
    management_url="http://127.0.0.1:9080",
    admin={"email": "admin@ias.example", "password": "the-admins-password"},
    org_id="o",
    project_id="p",
    api_key="ias-sk-0123",
    model="org/model:8b",
)


def test_the_curl_line_is_one_shell_command_with_a_json_body():
    words = shlex.split(curl_snippet(CONNECTION).replace("\\\n", " "))
    assert words[:3] == ["curl", "-N", "http://127.0.0.1:9000/v1/chat/completions"]
    assert "Authorization: Bearer ias-sk-0123" in words
    assert json.loads(words[words.index("-d") + 1])["model"] == "org/model:8b"


def test_the_python_text_is_a_program():
    tree = ast.parse(python_snippet(CONNECTION))
    assert "http://127.0.0.1:9000/v1" in ast.dump(tree)


def test_the_administrators_password_is_not_printed():
    text = render_greeting(CONNECTION, Path("/data"), detached=False)
    assert "the-admins-password" not in text
    assert "connection.json" in text


def test_how_to_stop_fits_how_it_was_started():
    assert "Ctrl-C" in render_greeting(CONNECTION, Path("/data"), detached=False)
    assert "ias down --data-dir /data" in render_greeting(CONNECTION, Path("/data"), detached=True)

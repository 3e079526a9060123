"""What is printed when the platform is up: where things are, and what to paste."""

from pathlib import Path

from ias.local.connection import Connection
from ias.local.typed_command import typed

_CURL = """\
curl -N {gateway_url}/v1/chat/completions \\
  -H "Authorization: Bearer {api_key}" \\
  -H "Content-Type: application/json" \\
  -d '{{"model": "{model}", "stream": true, "messages": [{{"role": "user", "content": "Hello!"}}]}}'"""

_PYTHON = """\
from openai import OpenAI

client = OpenAI(base_url="{gateway_url}/v1", api_key="{api_key}")
stream = client.chat.completions.create(
    model="{model}",
    messages=[{{"role": "user", "content": "Hello!"}}],
    stream=True,
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
print()"""


def curl_snippet(connection: Connection) -> str:
    """A streamed chat completion, ready to paste into a shell."""
    return _fill(_CURL, connection)


def python_snippet(connection: Connection) -> str:
    """The same with the OpenAI SDK, ready to paste into a file."""
    return _fill(_PYTHON, connection)


def render_greeting(connection: Connection, data_root: Path, *, detached: bool) -> str:
    """The whole text. It holds the API key and no other secret."""
    stop = typed("down", "--data-dir", str(data_root)) if detached else "Ctrl-C"
    return "\n".join(
        [
            "",
            "The platform is up.",
            "",
            f"  inference API   {connection.gateway_url}/v1   (model {connection.model})",
            f"  management      {connection.management_url}   (sign in as {connection.admin['email']};",
            f"                  the password is in {data_root / 'connection.json'})",
            f"  data and logs   {data_root}",
            f"  stop with       {stop}",
            "",
            "Try it with curl:",
            "",
            curl_snippet(connection),
            "",
            "or with the OpenAI SDK (pip install openai):",
            "",
            python_snippet(connection),
            "",
        ]
    )


def _fill(template: str, connection: Connection) -> str:
    return template.format(gateway_url=connection.gateway_url, api_key=connection.api_key, model=connection.model)

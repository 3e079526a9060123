"""Inference servers that already run on this machine, found by asking their usual ports on loopback."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from ias.local.typed_command import typed

_TIMEOUT_S = 0.5
_OWNERS: Mapping[str, str] = {"vllm": "vLLM", "llamacpp": "llama.cpp", "sglang": "SGLang", "library": "Ollama"}


@dataclass(frozen=True)
class LocalServer:
    """An OpenAI-compatible server that answers on its usual port."""

    name: str
    url: str
    """Base URL including `/v1`."""
    models: tuple[str, ...]

    def offer(self) -> str:
        """One line: what was found and the command that puts it behind the gateway."""
        model = self.models[0] if self.models else "NAME"
        command = typed("up", "--upstream", self.url, "--model", model)
        return f"{self.name} runs at {self.url}; to serve it: {command}"


async def find_local_servers(ports: Mapping[int, str] | None = None) -> list[LocalServer]:
    """Every known server that answers within half a second. `ports`: what to expect where; by default the usual ports."""
    usual = {11434: "Ollama", 8080: "llama.cpp", 8000: "vLLM", 1234: "LM Studio"} if ports is None else ports
    async with httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False) as client:
        found = await asyncio.gather(*(_ask(client, port, name) for port, name in usual.items()))
    return [server for server in found if server]


async def _ask(client: httpx.AsyncClient, port: int, name: str) -> LocalServer | None:
    url = f"http://127.0.0.1:{port}/v1"
    models = await list_models(client, url, api_key=None)
    if models is None or any(model.get("owned_by") == "ias" for model in models):
        return None
    owner = str(models[0].get("owned_by", "")).lower() if models else ""
    return LocalServer(_OWNERS.get(owner, name), url, tuple(str(model["id"]) for model in models))


async def list_models(client: httpx.AsyncClient, url: str, *, api_key: str | None) -> list[dict[str, Any]] | None:
    """What a server says it serves; None when nothing OpenAI-shaped answers there."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        answer = await client.get(f"{url}/models", headers=headers)
        answer.raise_for_status()
        models = answer.json()["data"]
        return [model for model in models if isinstance(model.get("id"), str)]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError, AttributeError):
        return None

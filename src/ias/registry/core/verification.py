"""Verification: one real, small completion sent through a backend, and what came of it."""

import asyncio
import json
import time
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import httpx
import structlog

from ias.contracts.usage_messages import COUNT_MAX
from ias.kit.egress import EgressRefusedError
from ias.kit.sealing import SealBrokenError
from ias.registry.core.backends import Backends
from ias.registry.core.credentials import CredentialAwayError, Credentials
from ias.registry.store.adapters import Adapter
from ias.registry.store.backends import Backend

log = structlog.get_logger("ias.registry")

_DETAIL_LENGTH_MAX = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the backend says the completion used, in tokens."""

    input_tokens: int
    cached_input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What came of one completion."""

    backend_id: UUID
    ok: bool
    """A 200 with at least one choice and with usage."""
    status: int | None
    """The HTTP status; None when there was no answer."""
    latency_ms: float
    usage: Usage | None
    detail: str
    """What went wrong, or a word that nothing did."""


class Verifications:
    """Tries backends out, through a client that heeds the egress policy and follows no redirect."""

    def __init__(
        self,
        backends: Backends,
        credentials: Credentials,
        client: httpx.AsyncClient,
        timeout_s: float,
    ) -> None:
        self._backends = backends
        self._credentials = credentials
        self._client = client
        self._timeout_s = timeout_s

    async def verify_backend(self, backend_id: UUID) -> Verification:
        """Send one completion, whatever the backend's status. Failures of the backend are in the answer.

        Raises:
            NotFoundError: there is no such backend.
        """
        return await self._verify(await self._backends.get_backend(backend_id))

    async def verify_adapter(self, adapter: Adapter, backend: Backend) -> Verification:
        """Look for an adapter in its server's list of models, then send one completion through it."""
        return await self._verify(replace(backend, upstream_model=adapter.name), must_be_listed=True)

    async def _verify(self, backend: Backend, *, must_be_listed: bool = False) -> Verification:
        started = time.perf_counter()
        status: int | None = None
        usage: Usage | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                headers = await self._authorize(backend)
                if must_be_listed and not await self._lists(backend, headers):
                    detail = "The server does not list the adapter among its models; load it there first."
                else:
                    status, body = await self._complete(backend, headers)
                    usage, detail = _judge(status, body)
        except EgressRefusedError as error:
            detail = error.detail
        except CredentialAwayError as error:
            detail = str(error)
        except SealBrokenError:
            detail = "The credential does not open with this platform's secret key; set it again."
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            detail = f"There was no usable answer: {type(error).__name__}."
        latency_ms = round((time.perf_counter() - started) * 1000, 1)
        ok = status == 200 and usage is not None
        log.info("a backend was verified", backend_id=str(backend.id), ok=ok, status=status, latency_ms=latency_ms)
        return Verification(
            backend_id=backend.id, ok=ok, status=status, latency_ms=latency_ms, usage=usage, detail=detail
        )

    async def _authorize(self, backend: Backend) -> dict[str, str]:
        credential = await asyncio.to_thread(self._credentials.find, backend)
        return {"authorization": f"Bearer {credential}"} if credential else {}

    async def _lists(self, backend: Backend, headers: dict[str, str]) -> bool:
        answer = await self._client.get(f"{backend.url}/models", headers=headers)
        told = _parse(answer.content)
        models = told.get("data") if isinstance(told, dict) else None
        return isinstance(models, list) and any(
            isinstance(one, dict) and one.get("id") == backend.upstream_model for one in models
        )

    async def _complete(self, backend: Backend, headers: dict[str, str]) -> tuple[int, Any]:
        body = {
            "model": backend.upstream_model,
            "messages": [{"role": "user", "content": "Say hello."}],
            "max_tokens": 8,
        }
        answer = await self._client.post(f"{backend.url}/chat/completions", headers=headers, json=body)
        return answer.status_code, _parse(answer.content)


def _parse(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _judge(status: int, body: Any) -> tuple[Usage | None, str]:
    if status != 200:
        return None, f"The backend answered {status}{_explain(body)}."
    if not isinstance(body, dict) or not isinstance(body.get("choices"), list) or not body["choices"]:
        return None, "The answer is not a chat completion."
    usage = _read_usage(body.get("usage"))
    if usage is None:
        return None, "The completion came without usage that could be booked; it would be billed by estimate."
    return usage, "The backend completed."


def _read_usage(usage: Any) -> Usage | None:
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    counts = [
        count
        for count in (usage.get("prompt_tokens"), cached or 0, usage.get("completion_tokens"))
        if isinstance(count, int) and not isinstance(count, bool) and 0 <= count <= COUNT_MAX
    ]
    if len(counts) < 3:
        return None
    return Usage(input_tokens=counts[0], cached_input_tokens=counts[1], output_tokens=counts[2])


def _explain(body: Any) -> str:
    """The code of an OpenAI-shaped error, never its text: that may repeat what was sent, the credential included."""
    error = body.get("error") if isinstance(body, dict) else None
    code = (error.get("code") or error.get("type")) if isinstance(error, dict) else None
    return f" ({code[:_DETAIL_LENGTH_MAX]})" if isinstance(code, str) and code.isidentifier() else ""

"""One look at a backend: is it alive, does it serve its model, does it sleep, how busy is it?

Every request goes where the egress policy allows, to the very address that was checked; no redirect is followed, no answer is
read beyond its bound, and everything has a deadline. What a backend writes is never repeated, but for the names of its models.
"""

import asyncio
import json
from typing import Any, NamedTuple

from ias.contracts.routes import Backend
from ias.kit.egress import EgressPolicy, EgressRefusedError
from ias.kit.sealing import SealBrokenError, Sealer
from ias.registry.core.engine_load import EngineLoad, read_engine_load
from ias.registry.core.engine_tokens import EngineTokens, read_engine_tokens
from ias.registry.core.plain_get import NoUsableAnswerError, PlainAnswer, PlainGet
from ias.registry.core.server_urls import server_of
from ias.registry.core.watched_backends import Finding

ADAPTERS_MAX = 100
_ANSWER_BYTES_MAX = 4_194_304
"""vLLM's metrics are some 100 kB; a list of a thousand adapters as much."""
_NOT_THERE = frozenset({404, 405, 501})


class Scrape(NamedTuple):
    """What a backend's metrics say."""

    load: EngineLoad
    tokens: EngineTokens | None


class Probes:
    """Looks at backends."""

    def __init__(self, egress: EgressPolicy, sealer: Sealer, *, timeout_s: float) -> None:
        self._sealer = sealer
        self._timeout_s = timeout_s
        self._http = PlainGet(egress, answer_bytes_max=_ANSWER_BYTES_MAX)

    async def probe(self, backend: Backend, *, asks_for_sleep: bool) -> Finding:
        """Whether the backend can serve. Its failures are findings; nothing is raised."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._probe(backend, asks_for_sleep=asks_for_sleep)
        except (EgressRefusedError, SealBrokenError, OSError, NoUsableAnswerError) as error:
            return Finding(is_well=False, reason=self._explain(error))

    async def scrape(self, backend: Backend) -> Scrape | None:
        """How busy the backend is and what it has counted; None when it does not answer."""
        root = _root_of(backend)
        if root is None:
            return None
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._http.get(f"{root}/metrics", {})
        except (OSError, NoUsableAnswerError, EgressRefusedError):  # a timeout is an OSError too
            return None
        if answer.status != 200:
            return None
        metrics = answer.body.decode("utf-8", "replace")
        return Scrape(read_engine_load(metrics), read_engine_tokens(metrics))

    def _explain(self, error: Exception) -> str:
        match error:
            case EgressRefusedError():
                return error.detail
            case SealBrokenError():
                return "its credential does not open with this platform's secret key"
            case TimeoutError():
                return f"it did not answer within {self._timeout_s:g} s"
            case ConnectionRefusedError():
                return "nothing accepts connections there"
            case NoUsableAnswerError():
                return f"it gave no usable answer: {error}"
        return f"no connection can be made, or it broke ({type(error).__name__})"

    async def _probe(self, backend: Backend, *, asks_for_sleep: bool) -> Finding:
        root = _root_of(backend)
        if root is not None:
            alive = await self._http.get(f"{root}/health", {})
            if alive.status != 200 and alive.status not in _NOT_THERE:
                return Finding(is_well=False, reason=f"its /health answers {alive.status}")
        finding = await self._look_for_model(backend)
        if root is None or not finding.is_well or not asks_for_sleep:
            return finding
        answer = await self._http.get(f"{root}/is_sleeping", {})  # vLLM has it in development mode only
        said = _parse(answer) if answer.status == 200 else None
        is_asleep = isinstance(said, dict) and said.get("is_sleeping") is True
        return Finding(is_well=True, reason=finding.reason, is_asleep=is_asleep, adapters=finding.adapters)

    async def _look_for_model(self, backend: Backend) -> Finding:
        headers = {}
        if backend.sealed_credential:
            headers["authorization"] = f"Bearer {self._sealer.open(backend.sealed_credential)}"
        answer = await self._http.get(f"{backend.url}/models", headers)
        if answer.status in (401, 403):
            return Finding(is_well=False, reason=f"it refuses its credential ({answer.status})")
        if answer.status in _NOT_THERE and not backend.vllm_extensions:
            return Finding(is_well=True, reason="it answers; it does not list its models")
        models = _list_models(_parse(answer)) if answer.status == 200 else None
        if models is None:
            return Finding(is_well=False, reason=f"its /v1/models is no list of models ({answer.status})")
        if backend.upstream_model not in models:
            return Finding(is_well=False, reason=f"it does not serve {backend.upstream_model!r}")
        adapters = [name for name, parent in models.items() if parent is not None][:ADAPTERS_MAX]
        return Finding(is_well=True, reason="it answers and lists its model", adapters=tuple(adapters))


def _root_of(backend: Backend) -> str | None:
    """Where vLLM's operations are, beside its version path; None for servers of another kind."""
    return server_of(backend.url) if backend.vllm_extensions else None


def _parse(answer: PlainAnswer) -> Any:
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        return None


def _list_models(body: Any) -> dict[str, Any] | None:
    """The models' names, and what each is an adapter of, if of anything."""
    listed = body.get("data") if isinstance(body, dict) else None
    if not isinstance(listed, list):
        return None
    return {
        model["id"]: model.get("parent")
        for model in listed
        if isinstance(model, dict) and isinstance(model.get("id"), str) and len(model["id"]) <= 200
    }

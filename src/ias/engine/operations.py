"""What operators and routers ask a replica: health, load, metrics, models, adapters, sleep, and the faults of the simulator.

Paths and answers are vLLM's, but for `/admin/faults`. Sleep and adapters are open in development mode only, as with
VLLM_SERVER_DEV_MODE=1 and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ias import __version__
from ias.engine.answers import make_model
from ias.engine.bodies import json_response, metrics_response, read_body
from ias.engine.faults import Faults, FaultSource, decode_faults
from ias.engine.metrics import EngineMetrics
from ias.engine.protocol import EngineError, bad_request
from ias.engine.replica import Replica
from ias.engine.settings import EngineSettings
from ias.engine.wall_clock import WallReplica

Refuse = Callable[[float], None]
"""Stop listening for so many seconds."""


class Served:
    """The names under which requests are taken: the model and its adapters."""

    def __init__(self, settings: EngineSettings) -> None:
        self._context_length = settings.context_length
        self._started = int(time.time())
        self.model = settings.model
        self.loras = dict.fromkeys(settings.loras, self._started)

    def find_lora(self, name: str | None) -> str | None:
        """The adapter of that name; None for the model itself.

        Raises:
            EngineError: there is no model and no adapter of that name.
        """
        if name in (None, self.model):
            return None
        if name not in self.loras:
            raise EngineError(404, "NotFoundError", f"The model `{name}` does not exist.", "model")
        return name

    def list(self) -> list[dict[str, Any]]:
        """As `/v1/models` lists them."""
        models = [make_model(self.model, self._started, self._context_length)]
        for name, created in self.loras.items():
            models.append({**make_model(name, created, self._context_length), "parent": self.model})
        return models


class Operations:
    """The handlers."""

    def __init__(
        self,
        settings: EngineSettings,
        *,
        served: Served,
        machine: Replica,
        replica: WallReplica,
        metrics: EngineMetrics,
        faults: FaultSource,
        refuse: Refuse,
    ) -> None:
        self._settings = settings
        self._served = served
        self._machine = machine
        self._replica = replica
        self._metrics = metrics
        self._faults = faults
        self._refuse = refuse
        self._stale_metrics = b""
        self._faults_since = time.monotonic()
        self.apply(faults.faults)

    def routes(self) -> list[Route]:
        """What is open under the settings."""
        routes = [
            Route("/v1/models", self.models),
            Route("/health", self.health),
            Route("/ping", self.health, methods=["GET", "POST"]),
            Route("/load", self.load),
            Route("/version", self.version),
            Route("/metrics", self.render_metrics),
        ]
        if self._settings.dev_mode:
            routes += [
                Route("/sleep", self.sleep, methods=["POST"]),
                Route("/wake_up", self.wake_up, methods=["POST"]),
                Route("/is_sleeping", self.is_sleeping),
                Route("/reset_prefix_cache", self.reset_prefix_cache, methods=["POST"]),
                Route("/v1/load_lora_adapter", self.load_lora, methods=["POST"]),
                Route("/v1/unload_lora_adapter", self.unload_lora, methods=["POST"]),
            ]
        if self._settings.admin:
            routes += [
                Route("/admin/faults", self.get_faults, methods=["GET"]),
                Route("/admin/faults", self.put_faults, methods=["PUT"]),
                Route("/admin/faults", self.delete_faults, methods=["DELETE"]),
            ]
        return routes

    async def models(self, _: Request) -> Response:
        """GET /v1/models."""
        return json_response({"object": "list", "data": self._served.list()})

    async def health(self, _: Request) -> Response:
        """GET /health: neither load nor sleep makes it bad, as with vLLM."""
        period_s = self._faults.faults.flap_health_s
        bad = period_s and int((time.monotonic() - self._faults_since) / period_s) % 2 == 0
        return Response(status_code=503 if bad else 200)

    async def load(self, _: Request) -> Response:
        """GET /load."""
        return json_response({"server_load": self._replica.load})

    async def version(self, _: Request) -> Response:
        """GET /version."""
        return json_response({"version": f"ias-sim-{__version__}"})

    async def render_metrics(self, _: Request) -> Response:
        """GET /metrics."""
        if self._faults.faults.failing_metrics:
            return PlainTextResponse("Internal Server Error", status_code=500)
        stale = self._faults.faults.stale_metrics
        return metrics_response(self._stale_metrics if stale else self._metrics.render())

    async def sleep(self, request: Request) -> Response:
        """POST /sleep?level=1|2&mode=abort|wait|keep: stop computing, drop the cache; requests wait until it is woken."""
        level, mode = request.query_params.get("level", "1"), request.query_params.get("mode", "abort")
        if level not in {"1", "2"} or mode not in {"abort", "wait", "keep"}:
            raise bad_request("level must be 1 or 2, and mode abort, wait or keep.", "level")
        if mode == "wait":
            await self._replica.wait_until_idle()
        self._replica.pause(abort=mode == "abort")
        self._metrics.set_asleep(int(level))
        return Response(status_code=200)

    async def wake_up(self, _: Request) -> Response:
        """POST /wake_up."""
        await asyncio.sleep(self._settings.wake_s)
        self._replica.resume()
        self._metrics.set_asleep(0)
        return Response(status_code=200)

    async def is_sleeping(self, _: Request) -> Response:
        """GET /is_sleeping."""
        return json_response({"is_sleeping": self._replica.is_asleep})

    async def reset_prefix_cache(self, _: Request) -> Response:
        """POST /reset_prefix_cache: forget what nobody uses."""
        self._machine.scheduler.pool.forget()
        return Response(status_code=200)

    async def load_lora(self, request: Request) -> Response:
        """POST /v1/load_lora_adapter."""
        name = await _read_lora_name(request)
        if name in self._served.loras or name == self._served.model:
            raise bad_request(f"The lora adapter '{name}' has already been loaded.")
        self._served.loras[name] = int(time.time())
        return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")

    async def unload_lora(self, request: Request) -> Response:
        """POST /v1/unload_lora_adapter."""
        name = await _read_lora_name(request)
        if self._served.loras.pop(name, None) is None:
            raise EngineError(404, "NotFoundError", f"The lora adapter '{name}' cannot be found.")
        return PlainTextResponse(f"Success: LoRA adapter '{name}' removed successfully.")

    async def get_faults(self, _: Request) -> Response:
        """GET /admin/faults."""
        return json_response(self._faults.faults)

    async def put_faults(self, request: Request) -> Response:
        """PUT /admin/faults: these, and no others, from now on."""
        try:
            faults = decode_faults(await read_body(request))
        except ValueError as error:
            raise bad_request(f"Those are no faults: {error}") from error
        self.apply(faults)
        return json_response(faults)

    async def delete_faults(self, _: Request) -> Response:
        """DELETE /admin/faults: nothing goes wrong any more."""
        self.apply(Faults())
        return Response(status_code=204)

    def apply(self, faults: Faults) -> None:
        """Let these faults hold from now on."""
        if (faults.stale_metrics and not self._faults.faults.stale_metrics) or not self._stale_metrics:
            self._stale_metrics = self._metrics.render()
        self._faults.faults = faults
        self._faults_since = time.monotonic()
        self._machine.slowness = faults.slow
        if faults.refuse_connections_s:
            self._refuse(faults.refuse_connections_s)


class _LoraRequest(msgspec.Struct):
    lora_name: str
    lora_path: str = ""


async def _read_lora_name(request: Request) -> str:
    try:
        return msgspec.json.decode(await read_body(request), type=_LoraRequest).lora_name
    except msgspec.MsgspecError as error:
        raise bad_request(str(error), "lora_name") from error

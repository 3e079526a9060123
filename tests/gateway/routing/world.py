"""A model's router with backends of a test's own making."""

import random
from typing import Any
from zlib import crc32

from ias.contracts.backend_states import BackendState
from ias.contracts.routes import Backend, ModelRoute, RoutePolicy
from ias.gateway.routing.asks import Ask
from ias.gateway.routing.loads import Place
from ias.gateway.routing.model_router import ModelRouter
from ias.gateway.routing.prefixes import name_beginnings


def backend(name: str, **more: Any) -> Backend:
    return Backend(**{"id": name, "url": f"http://{name}/v1", "upstream_model": "m", **more})


def route(*backends: Backend, **policy: Any) -> ModelRoute:
    return ModelRoute(
        model_id="m", name="m", created=0, context_length=8192, policy=RoutePolicy(**policy), backends=backends
    )


def router(*backends: Backend, states: dict[str, BackendState] | None = None, **policy: Any) -> ModelRouter:
    made = ModelRouter(route(*backends, **policy), draw=random.Random(1))  # noqa: S311
    made.update(made.route, states or {}, now_s=0.0, unix_s=1000.0)
    return made


def ready(**more: Any) -> BackendState:
    return BackendState(**{"health": "ready", "since": 0, **more})


def prompt(text: str, org: str = "org", **more: Any) -> Ask:
    body = text.encode()
    return Ask(org, tokens=len(body) // 4, names=name_beginnings(body, crc32(org.encode())), **more)


def place(of: ModelRouter, ask: Ask) -> Place:
    found = of.ask(ask)
    assert isinstance(found, Place), found
    return found


def chosen(of: ModelRouter, ask: Ask) -> str:
    """The backend that a request would go to; it is over at once."""
    found = place(of, ask)
    found.release()
    return found.load.backend_id

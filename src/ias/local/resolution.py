"""From what was typed to what is started: ports, the upstream and its model are decided here."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx

from ias.local.discovery import find_local_servers, list_models
from ias.local.errors import UsageProblemError
from ias.local.options import DEFAULT_CONTEXT_LENGTH, DEFAULT_MODEL, UpOptions, Upstream, default_workers
from ias.local.ports import find_free_ports

_UPSTREAM_TIMEOUT_S = 5.0


async def resolve_options(asked: Mapping[str, Any], given: Collection[str], show: Callable[[str], None]) -> UpOptions:
    """Decide everything that was left open. `given` names the options that were typed; `show` prints a line.

    Raises:
        UsageProblemError: what was typed does not fit together.
    """
    port, management_port = asked["port"], asked["management_port"]
    if asked["ephemeral"]:
        free_port, free_management_port = find_free_ports(2)
        port = port if "port" in given else free_port
        management_port = management_port if "management_port" in given else free_management_port
    if port == management_port:
        raise UsageProblemError("--port and --management-port must differ")
    upstream, model, context_length = None, asked["model"] or DEFAULT_MODEL, DEFAULT_CONTEXT_LENGTH
    if asked["upstream"]:
        url = normalise_upstream(asked["upstream"])
        served = await _ask_upstream(url, asked["upstream_key"], asked["model"], show)
        model, context_length = str(served["id"]), _context_length(served)
        engine: Literal["vllm", "openai"] = "vllm" if served.get("owned_by") == "vllm" else "openai"
        upstream = Upstream(url=url, api_key=asked["upstream_key"], engine=engine)
    else:
        for server in await find_local_servers():
            show(server.offer())
    return UpOptions(
        data_root=asked["data_dir"],
        host=asked["host"],
        port=port,
        management_port=management_port,
        workers=asked["workers"] or default_workers(),
        model=model,
        context_length=context_length,
        upstream=upstream,
        ephemeral=asked["ephemeral"],
    )


def normalise_upstream(url: str) -> str:
    """The base URL with its version path, which is `/v1` unless the URL names one.

    Raises:
        UsageProblemError: not an http(s) URL.
    """
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageProblemError(f"--upstream {url} is not a URL like http://127.0.0.1:11434/v1")
    path = parts.path.rstrip("/")
    for endpoint in ("/chat/completions", "/models"):
        path = path.removesuffix(endpoint)
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"


async def _ask_upstream(
    url: str, api_key: str | None, wanted: str | None, show: Callable[[str], None]
) -> dict[str, Any]:
    """What the server says of the wanted model, or of its only one; no more than the name when it says nothing."""
    async with httpx.AsyncClient(timeout=_UPSTREAM_TIMEOUT_S) as client:
        models = await list_models(client, url, api_key=api_key)
    known = {str(model["id"]): model for model in models or []}
    if wanted is None and len(known) != 1:
        serves = f"serves {', '.join(known)}" if known else "does not say what it serves"
        raise UsageProblemError(f"--model is needed: {url} {serves}")
    name = wanted or next(iter(known))
    if models is None:
        show(f"note: {url} does not list its models now; going on with {name}")
    elif name not in known:
        show(f"note: {url} does not list {name}; it lists {', '.join(known) or 'nothing'}")
    return known.get(name, {"id": name})


def _context_length(model: Mapping[str, Any]) -> int:
    """What the server says of the model, where it does: vLLM and llama.cpp each in its own way."""
    meta = model.get("meta")
    candidates = [
        model.get("max_model_len"),
        model.get("context_length"),
        meta.get("n_ctx_train") if isinstance(meta, dict) else None,
    ]
    return next((length for length in candidates if isinstance(length, int) and length > 0), DEFAULT_CONTEXT_LENGTH)

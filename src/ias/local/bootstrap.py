"""The first org, project, API key, model, backend, price and budget: made through the management API, as anyone would.

Running it again makes nothing twice: what is there is found and kept, whatever its owner changed since. `bootstrap.json` keeps
the one thing that cannot be had again, the API key's text.
"""

from collections.abc import AsyncIterator
from typing import Any

import httpx

from ias.local.connection import Connection
from ias.local.data_directory import find_document, write_private
from ias.local.errors import PlatformError
from ias.local.management_api import ManagementApi, RefusedError
from ias.local.processes import Place

ORG_NAME = "acme"
PROJECT_NAME = "default"
_KEY_NAME = "ias up"
_PRICE = {
    "input_usd_per_million": "0.15",
    "cached_input_usd_per_million": "0.075",
    "output_usd_per_million": "0.60",
}
_BUDGET = {"window": "month", "limit_usd": "100.00", "mode": "hard"}


async def bootstrap(place: Place, client: httpx.AsyncClient) -> Connection:
    """Make what is missing; how to reach the platform.

    Raises:
        PlatformError: a call was refused or not answered.
    """
    api = ManagementApi(client, place.management_url)
    try:
        await api.sign_in(place.secrets.admin_email, place.secrets.admin_password)
    except RefusedError as error:
        if error.status != 401:
            raise
        raise PlatformError(
            f"the first administrator ({place.secrets.admin_email}) cannot sign in",
            f"if the password was changed, put the new one into {place.data.secrets}",
        ) from error
    remembered = find_document(place.data.bootstrap) or {}
    org_id = await _ensure_org(api)
    project_id = await _ensure_project(api, org_id)
    key = await _ensure_api_key(api, project_id, remembered)
    backends = await _ensure_model(api, place, remembered.get("backends", {}))
    await _ensure_price(api, place.options.model)
    budget_id = await _ensure_budget(api, org_id, remembered)
    made = {**key, "org_id": org_id, "budget_id": budget_id, "backends": backends}
    write_private(place.data.bootstrap, {**remembered, **made})
    return Connection(
        gateway_url=place.gateway_url,
        gateway_metrics_url=place.gateway_metrics_url,
        management_url=place.management_url,
        admin={"email": place.secrets.admin_email, "password": place.secrets.admin_password},
        org_id=org_id,
        project_id=project_id,
        api_key=key["api_key"],
        model=place.options.model,
    )


async def _find(items: AsyncIterator[dict[str, Any]], **wanted: Any) -> dict[str, Any] | None:
    async for item in items:
        if all(item.get(name) == value for name, value in wanted.items()):
            return item
    return None


async def _ensure_org(api: ManagementApi) -> str:
    org = await _find(api.list("/identity/v1/orgs"), name=ORG_NAME)
    org = org or await api.post("/identity/v1/orgs", {"name": ORG_NAME})
    return str(org["id"])


async def _ensure_project(api: ManagementApi, org_id: str) -> str:
    path = f"/identity/v1/orgs/{org_id}/projects"
    project = await _find(api.list(path), name=PROJECT_NAME)
    project = project or await api.post(path, {"name": PROJECT_NAME})
    return str(project["id"])


async def _ensure_api_key(api: ManagementApi, project_id: str, remembered: dict[str, Any]) -> dict[str, str]:
    """The remembered key while it is still active, else a new one."""
    path = f"/identity/v1/projects/{project_id}/api-keys"
    if "api_key" in remembered:
        listed = await _find(api.list(path), id=remembered.get("api_key_id"), status="active")
        if listed:
            return {"api_key_id": listed["id"], "api_key": remembered["api_key"]}
    made = await api.post(path, {"name": _KEY_NAME})
    return {"api_key_id": made["id"], "api_key": made["key"]}


async def _ensure_model(api: ManagementApi, place: Place, own: dict[str, str]) -> dict[str, str]:
    """The model and one backend that is ours, told where it is now; what others added or changed besides stays.

    `own` and the answer: the id of our backend by the model's name.
    """
    name = place.options.model
    model = await _find(api.list("/registry/v1/models", name=name), name=name)
    model = model or await api.post(
        "/registry/v1/models", {"name": name, "context_length": place.options.context_length}
    )
    path = f"/registry/v1/models/{model['id']}/backends"
    backend, wanted = await _find(api.list(path), id=own.get(name)), _describe_backend(place)
    if backend is None:
        backend = await api.post(path, wanted)
    elif wanted["credential"] is not None or any(backend[field] != wanted[field] for field in ("url", "engine")):
        await api.patch(f"/registry/v1/backends/{backend['id']}", wanted)
    return {**own, name: backend["id"]}


def _describe_backend(place: Place) -> dict[str, Any]:
    upstream = place.options.upstream
    if upstream is None:
        return {"url": f"{place.engine_url}/v1", "engine": "ias-sim", "credential": None}
    return {"url": upstream.url, "engine": upstream.engine, "credential": upstream.api_key}


async def _ensure_price(api: ManagementApi, model: str) -> None:
    if await _find(api.list("/billing/v1/prices", model=model), model=model) is None:
        await api.post("/billing/v1/prices", {"model": model, **_PRICE})


async def _ensure_budget(api: ManagementApi, org_id: str, remembered: dict[str, Any]) -> str:
    """A monthly ceiling for the org. One that its owner deleted is not made again."""
    if remembered.get("org_id") == org_id and "budget_id" in remembered:
        return str(remembered["budget_id"])
    path = "/billing/v1/budgets"
    budget = await _find(api.list(path, org_id=org_id), window=_BUDGET["window"])
    budget = budget or await api.post(path, {"org_id": org_id, "scope": {"kind": "org", "id": org_id}, **_BUDGET})
    return str(budget["id"])

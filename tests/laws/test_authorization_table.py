"""The authorization table: every route of every service, asked by everybody who should be refused, on real servers.

Nothing here names a route: they come from the apps, with what each says it needs. A new route is walked from the day it is there,
and one whose path holds a new kind of id fails until the world has such an object.
"""

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tests.identity.database import fetch
from tests.identity.platform import eventually
from tests.laws.authorization_world import SERVICES, World, running_world
from tests.laws.routes import Guarded, list_routes

from ias.contracts.permissions import PLATFORM_PERMISSIONS, ROLE_PERMISSIONS, Role

PARAMETER = re.compile(r"\{(\w+)\}")

Row = tuple[str, Guarded]
Denied = set[tuple[str | None, str, str]]


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_everybody_who_should_be_refused_is_and_each_denial_is_in_the_audit_log(
    make_migrated_database: Callable[[str], str], redis_url: str
) -> None:
    urls = {service: make_migrated_database(service) for service in SERVICES}
    async with running_world(urls, redis_url) as world:
        walk = Walk(world)
        for service, app in world.apps.items():
            await walk.service(service, app)
        assert walk.wrong == []
        assert walk.cells > 500
        await check_log(urls["identity"], walk.denied)


class Walk:
    """One pass over the table, remembering what was answered wrongly and what the log must hold."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.wrong: list[str] = []
        self.denied: Denied = set()
        self.cells = 0

    async def service(self, service: str, app: FastAPI) -> None:
        document = app.openapi()
        for route in list_routes(app):
            if route.public_reason:
                continue
            operation = document["paths"].get(route.path, {}).get(route.method.lower(), {})
            try:
                request = build_request(route, operation, document, self.world.ids)
            except KeyError as missing:
                self.wrong.append(f"{route}: the world has no {missing}")
                continue
            await self._refuse_everybody(service, route, request)
            if route.permission is not None and route.permission not in PLATFORM_PERMISSIONS:
                await self._refuse_another_org(service, route, operation, document)
                await self._stay_with_a_suspended_org(service, route, operation, document)

    async def _refuse_everybody(self, service: str, route: Guarded, request: dict[str, Any]) -> None:
        callers = {"no token": None, "garbage": "garbage", **self.world.tokens}
        for name in ("no token", "garbage", "revoked key", "expired", "suspended member", "revoked session"):
            if route.is_internal and name not in ("no token", "garbage", "revoked key"):
                continue  # a user's token is of another audience there: tested without servers
            await self._expect(service, route, request, (name, callers[name]), {401})
        if route.permission is not None:
            lacking = [role for role in Role if route.permission not in ROLE_PERMISSIONS[role]]
            name = lacking[0].value if lacking else "nobody"
            await self._expect(service, route, request, (name, callers[name]), {403})

    async def _refuse_another_org(
        self, service: str, route: Guarded, operation: dict[str, Any], document: dict[str, Any]
    ) -> None:
        """The owner of one org asks for another's, and for what is nowhere: the same answer, but for where it was asked."""
        ours = build_request(route, operation, document, self.world.ids)
        nowhere = build_request(route, operation, document, self.world.absent_ids)
        if ours == nowhere:
            return  # it names nothing of an org: it lists the caller's own, or what everybody may see
        caller = ("owner elsewhere", self.world.tokens["owner elsewhere"])
        hidden = await self._expect(service, route, ours, caller, {403, 404, 422})
        there_is_none = await self.world.call(service, nowhere, caller[1])
        if bytes_of(hidden, ours) != bytes_of(there_is_none, nowhere):
            self.wrong.append(f"{route}: {hidden.text} tells from {there_is_none.text}")

    async def _stay_with_a_suspended_org(
        self, service: str, route: Guarded, operation: dict[str, Any], document: dict[str, Any]
    ) -> None:
        """What a suspension stops is the org's traffic: its owner reads and manages on, and gains nothing in other orgs."""
        name = "owner of a suspended org"
        caller = (name, self.world.tokens[name])
        ours = build_request(route, operation, document, self.world.ids)
        nowhere = build_request(route, operation, document, self.world.absent_ids)
        if ours != nowhere:
            await self._expect(service, route, ours, caller, {403, 404, 422})
        theirs = build_request(route, operation, document, {**self.world.ids, "org_id": self.world.suspended_org_id})
        if theirs == ours:
            return  # it names no org
        if any(one["name"] == "dry_run" for one in operation.get("parameters", [])):
            theirs["params"] = {**theirs["params"], "dry_run": "true"}
        answer = await self.world.call(service, theirs, caller[1])
        self.cells += 1
        if answer.status_code in (401, 403) or answer.status_code >= 500:
            self.wrong.append(f"{route} answered {answer.status_code} to {name} in it: {answer.text[:200]}")

    async def _expect(
        self, service: str, route: Guarded, request: dict[str, Any], caller: tuple[str, str | None], allowed: set[int]
    ) -> httpx.Response:
        name, token = caller
        answer = await self.world.call(service, request, token)
        self.cells += 1
        if answer.status_code not in allowed:
            self.wrong.append(f"{route} answered {answer.status_code} to {name}: {answer.text[:200]}")
        if answer.status_code in (401, 403, 404):
            target = f"{route.method} {httpx.URL(request['url']).path}"
            self.denied.add((self.world.users.get(name), route.guards[0], target))
        return answer


def build_request(
    route: Guarded, operation: dict[str, Any], document: dict[str, Any], ids: dict[str, str]
) -> dict[str, Any]:
    """A request that would be well-formed for somebody who may. Raises KeyError for an id that is not among `ids`."""
    url = PARAMETER.sub(lambda found: ids[found[1]], route.path)
    parameters = operation.get("parameters", [])
    query = {
        one["name"]: ids["org_id"] if one["name"] == "org_id" else sample(one["schema"], document, ids)
        for one in parameters
        if one["in"] == "query" and (one.get("required") or one["name"] == "org_id")
    }
    request: dict[str, Any] = {"method": route.method, "url": url, "params": query}
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body is not None:
        request["json"] = sample(body["schema"], document, ids)
    return request


def sample(schema: dict[str, Any], document: dict[str, Any], ids: dict[str, str]) -> Any:
    """A value that a schema takes, in most cases."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    for keyword in ("anyOf", "oneOf", "allOf"):
        if keyword in schema:
            return sample(schema[keyword][0], document, ids)
    if schema.get("type") == "object":
        fields = {name: schema["properties"][name] for name in schema.get("required", [])}
        return {name: ids.get(name) or sample(field, document, ids) for name, field in fields.items()}
    if schema.get("type") == "array":
        return [sample(schema.get("items", {}), document, ids)] * schema.get("minItems", 0)
    text = ids["project_id"] if schema.get("format") == "uuid" else "1" * max(1, schema.get("minLength", 1))
    plain = {"integer": schema.get("minimum", 1), "number": schema.get("minimum", 1), "boolean": False}
    return schema.get("const", schema.get("enum", [plain.get(schema.get("type", ""), text)])[0])


def bytes_of(answer: httpx.Response, request: dict[str, Any]) -> tuple[int, str]:
    """The answer without what says where it was asked."""
    path = httpx.URL(request["url"]).path
    return answer.status_code, answer.text.replace(path, "/")


async def check_log(database_url: str, denied: Denied) -> None:
    """Each denial is in some chain, with who was refused, what was needed and where."""
    query = "SELECT DISTINCT actor_id, action, target_id FROM audit_log WHERE outcome = 'denied'"
    missing: Denied = denied

    async def all_there() -> bool:
        nonlocal missing
        rows = await fetch(database_url, query)
        missing = denied - {(row["actor_id"], row["action"], row["target_id"]) for row in rows}
        return not missing

    try:
        await eventually(all_there, seconds=60)
    except TimeoutError:
        pytest.fail(f"{len(missing)} of {len(denied)} denials are not in the log: {sorted(map(str, missing))[:10]}")

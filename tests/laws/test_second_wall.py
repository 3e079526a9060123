"""With the application's own check gone, PostgreSQL keeps every service from showing or changing another org's rows."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.identity.database import connected
from tests.laws.authorization_world import ABSENT_ID, SERVICES, World, running_world
from tests.laws.routes import Guarded, list_routes
from tests.laws.test_authorization_table import build_request, bytes_of

from ias.contracts.permissions import PLATFORM_PERMISSIONS
from ias.kit.access import Access, OrgScope

_TABLES = """
    SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'org_id'
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND c.relname NOT LIKE 'audit%' ORDER BY 1
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_without_the_applications_check_another_org_is_like_one_that_never_was(
    make_migrated_database: Callable[[str], str], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = {service: make_migrated_database(service) for service in SERVICES}
    async with running_world(urls, redis_url) as world:
        before = await look_at_rows(urls, world.org_id)
        assert {name.partition(".")[0] for name, rows in before.items() if rows} == set(urls) - {"registry"}
        requests = list(requests_about_orgs(world))
        own = [await world.call(service, ours, world.tokens["owner"]) for service, ours, _ in requests if reads(ours)]
        assert {answer.status_code for answer in own} == {200}
        monkeypatch.setattr(Access, "_scope", lambda access, org, project: OrgScope(org, project, access.actor))

        wrong = []
        for service, ours, nowhere in requests:
            theirs, nobodys = [
                await world.call(service, one, world.tokens["owner elsewhere"]) for one in (ours, nowhere)
            ]
            status, text = bytes_of(theirs, ours)
            same = (status, text.replace(world.org_id, ABSENT_ID)) == bytes_of(nobodys, nowhere)
            if not same and not is_refused_by_postgres(theirs):
                wrong.append(f"{service} {ours['method']} {ours['url']}: {theirs.text} tells from {nobodys.text}")

        assert wrong == []
        assert len(requests) > 50
        assert await look_at_rows(urls, world.org_id) == before


def requests_about_orgs(world: World) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Each request that names something of the org, and the same about what is nowhere."""
    for service, app in world.apps.items():
        document = app.openapi()
        for route in list_routes(app):
            if is_of_orgs(route):
                operation = document["paths"].get(route.path, {}).get(route.method.lower(), {})
                ours, nowhere = [
                    build_request(route, operation, document, ids) for ids in (world.ids, world.absent_ids)
                ]
                if ours != nowhere:
                    yield service, ours, nowhere


def is_of_orgs(route: Guarded) -> bool:
    return not route.public_reason and route.permission is not None and route.permission not in PLATFORM_PERMISSIONS


def reads(request: dict[str, Any]) -> bool:
    return bool(request["method"] == "GET" and "export" not in request["url"])


def is_refused_by_postgres(answer: Any) -> bool:
    """A row of another org was about to be written: the policy fails the statement, and the caller learns no more than that."""
    return bool(answer.status_code == 500)


async def look_at_rows(urls: dict[str, str], org_id: str) -> dict[str, list[str]]:
    """A digest of each row of the org, by service and table."""
    found = {}
    for service, url in urls.items():
        async with connected(url) as connection:
            await connection.execute("SET ias.orgs = '*'")
            for table in [row["relname"] for row in await connection.fetch(_TABLES)]:
                query = f"SELECT md5(t::text) AS digest FROM {table} t WHERE org_id = $1 ORDER BY 1"  # noqa: S608
                found[f"{service}.{table}"] = [row["digest"] for row in await connection.fetch(query, org_id)]
    return found

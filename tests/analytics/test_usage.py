"""Usage over time, as callers see it."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import FastAPI

from ias.analytics.core.counting import Counting
from ias.contracts.events import UsageRecord
from ias.contracts.permissions import Role
from ias.contracts.usage_messages import check_message
from ias.kit.database import Database
from tests.analytics.conftest import client_of
from tests.billing.usage import PROJECT_ID, id_at, make_record, message
from tests.kit.token_issuer import TokenIssuer

NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)
SPAN = {"start": (NOON - timedelta(hours=12)).isoformat(), "end": (NOON + timedelta(hours=12)).isoformat()}


async def count(database: Database, *records: UsageRecord) -> None:
    await Counting(database).count(check_message(message(*records)).records)


async def ask(analytics: httpx.AsyncClient, org_id: str, **params: Any) -> dict[str, Any]:
    answer = await analytics.get("/analytics/v1/usage", params={"org_id": org_id, **SPAN, **params})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_usage_by_the_hour_adds_up_what_was_admitted_in_it(
    analytics: httpx.AsyncClient, database: Database, org_id: str
) -> None:
    at = [NOON, NOON + timedelta(minutes=59, seconds=59), NOON + timedelta(hours=1)]
    await count(database, *(make_record(org_id, id=id_at(moment)) for moment in at))
    answer = await ask(analytics, org_id)
    assert [(point["start"], point["requests"], point["cost_usd"]) for point in answer["data"]] == [
        (NOON.isoformat().replace("+00:00", "Z"), 2, "0.004"),
        ((NOON + timedelta(hours=1)).isoformat().replace("+00:00", "Z"), 1, "0.002"),
    ]
    assert answer["data"][0]["input_tokens"] == 2000
    assert answer["as_of"] is not None


async def test_usage_by_day_and_group_tells_groups_apart(
    analytics: httpx.AsyncClient, database: Database, org_id: str
) -> None:
    key = str(uuid4())
    await count(
        database,
        make_record(org_id, id=id_at(NOON), model="a"),
        make_record(org_id, id=id_at(NOON + timedelta(hours=3)), model="a", api_key_id=key, outcome="failed"),
        make_record(org_id, id=id_at(NOON), model="b", user_id=None),
    )

    async def groups(group_by: str) -> list[tuple[str | None, int, int]]:
        answer = await ask(analytics, org_id, bucket="day", group_by=group_by)
        return [(point["group"], point["requests"], point["failed"]) for point in answer["data"]]

    assert await groups("model") == [("a", 2, 1), ("b", 1, 0)]
    assert await groups("project") == [(PROJECT_ID, 3, 1)]
    assert (key, 1, 1) in await groups("api_key")
    assert sorted(requests for _, requests, _ in await groups("user")) == [1, 2]
    assert await groups("none") == [(None, 3, 1)]


async def test_percentiles_are_within_one_bucket(analytics: httpx.AsyncClient, database: Database, org_id: str) -> None:
    records = [
        make_record(org_id, id=id_at(NOON + timedelta(minutes=i % 120)), duration_ms=float(i), ttft_ms=None)
        for i in range(1, 101)
    ]
    await count(database, *records)
    [point] = (await ask(analytics, org_id, bucket="day"))["data"]
    assert point["time_to_first_token_ms"] == {"p50": None, "p95": None, "p99": None}
    for name, true_ms in (("p50", 50), ("p95", 95), ("p99", 99)):
        assert true_ms <= point["duration_ms"][name] <= true_ms * 2**0.25


async def test_an_org_without_requests_has_no_points(analytics: httpx.AsyncClient, org_id: str) -> None:
    assert await ask(analytics, org_id) == {"data": [], "as_of": None}


async def test_a_wrong_question_is_refused(analytics: httpx.AsyncClient, org_id: str) -> None:
    wrong = [
        {"start": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z"},
        {"start": "2025-01-01T00:00:00Z", "end": "2026-01-01T00:00:00Z"},
        {"start": "yesterday"},
        {"bucket": "week"},
        {"group_by": "secret"},
    ]
    for params in wrong:
        answer = await analytics.get("/analytics/v1/usage", params={"org_id": org_id, **params})
        assert answer.status_code == 422, params
        assert answer.json()["errors"]


async def test_requests_page_newest_first_within_their_filters(
    analytics: httpx.AsyncClient, database: Database, org_id: str
) -> None:
    records = [make_record(org_id, id=id_at(NOON + timedelta(seconds=i)), model=f"m{i % 2}") for i in range(7)]
    await count(database, *records, make_record(str(uuid4())))
    seen: list[str] = []
    cursor: str | None = None
    while True:
        params: dict[str, Any] = {"org_id": org_id, "model": "m0", "limit": 3} | ({"cursor": cursor} if cursor else {})
        page = (await analytics.get("/analytics/v1/requests", params=params)).json()
        seen += [request["id"] for request in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [records[i].id for i in (6, 4, 2, 0)]


@pytest.mark.parametrize("path", ["/analytics/v1/usage", "/analytics/v1/requests"])
async def test_only_members_of_the_org_see_its_usage(app: FastAPI, issuer: TokenIssuer, org_id: str, path: str) -> None:
    params = {"org_id": org_id}
    async with client_of(app) as client:
        assert (await client.get(path, params=params)).status_code == 401
        member = issuer.member(org_id, Role.VIEWER)
        stranger = issuer.member(str(uuid4()), Role.OWNER)
        in_a_project = issuer.member(org_id, Role.VIEWER, project_id=str(UUID(int=1)))
        assert (await client.get(path, params=params, headers=member)).status_code == 200
        assert (await client.get(path, params=params, headers=stranger)).status_code == 404
        assert (await client.get(path, params=params, headers=in_a_project)).status_code == 403

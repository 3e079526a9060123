"""Raises: more room in a budget for a while, known to gateways at once, gone by themselves."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from redis.asyncio import Redis

from ias.contracts.permissions import Role
from tests.billing.conftest import RunningBilling, client_of, create_budget
from tests.billing.test_budgets import read_policy
from tests.billing.usage import eventually
from tests.kit.token_issuer import TokenIssuer


async def create_raisable(billing: httpx.AsyncClient, org_id: str, **more: Any) -> dict[str, Any]:
    return await create_budget(billing, org_id, at_limit="require_override", **more)


async def grant(billing: httpx.AsyncClient, budget_id: str, *, seconds: float = 3600, **more: Any) -> httpx.Response:
    expires_at = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
    body = {"amount_usd": "5", "expires_at": expires_at, "reason": "Month's end.", **more}
    return await billing.post(f"/billing/v1/budgets/{budget_id}/raises", json=body)


async def show(billing: httpx.AsyncClient, budget_id: str) -> tuple[str, str, str]:
    told = (await billing.get(f"/billing/v1/budgets/{budget_id}")).json()
    return told["limit_usd"], told["raised_limit_usd"], told["remaining_usd"]


async def test_a_raise_is_in_the_policy_and_in_the_answer_until_it_is_revoked(
    billing: httpx.AsyncClient, redis: Redis, org_id: str
) -> None:
    budget = await create_raisable(billing, org_id)
    granted = await grant(billing, budget["id"])
    assert granted.status_code == 201, granted.text
    policy = await read_policy(redis, org_id)
    assert policy is not None
    [published] = policy.budgets
    assert [one.amount_nano_usd for one in published.raises] == [5_000_000_000]
    assert await show(billing, budget["id"]) == ("10.00", "15.00", "15.00")
    url = f"/billing/v1/budgets/{budget['id']}/raises"
    assert (await billing.delete(f"{url}/{granted.json()['id']}")).status_code == 204
    policy = await read_policy(redis, org_id)
    assert policy is not None
    assert policy.budgets[0].raises == ()
    [listed] = (await billing.get(url)).json()["data"]
    assert (listed["reason"], listed["revoked_at"] is not None) == ("Month's end.", True)
    assert await show(billing, budget["id"]) == ("10.00", "10.00", "10.00")


async def test_a_raise_ends_by_itself(billing: httpx.AsyncClient, org_id: str) -> None:
    budget = await create_raisable(billing, org_id)
    assert (await grant(billing, budget["id"], seconds=1.5)).status_code == 201

    async def is_over() -> bool:
        return (await show(billing, budget["id"]))[1] == "10.00"

    await eventually(is_over)


@pytest.mark.parametrize(
    ("more", "pointer"),
    [
        ({"amount_usd": "0"}, "/amount_usd"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-10:00"}, "/expires_at"),
        ({"reason": ""}, "/reason"),
    ],
)
async def test_a_raise_that_makes_no_sense_is_refused(
    billing: httpx.AsyncClient, org_id: str, more: dict[str, str], pointer: str
) -> None:
    budget = await create_raisable(billing, org_id)
    refused = await grant(billing, budget["id"], **more)
    assert (refused.status_code, [e["pointer"] for e in refused.json()["errors"]]) == (422, [pointer])


async def test_raises_in_force_are_bounded_and_others_budgets_have_none(
    run_billing: RunningBilling, issuer: TokenIssuer, billing: httpx.AsyncClient, org_id: str
) -> None:
    budget = await create_raisable(billing, org_id)
    for _ in range(10):
        assert (await grant(billing, budget["id"])).status_code == 201
    assert (await grant(billing, budget["id"])).json()["code"] == "too_many_raises"
    async with run_billing() as app, client_of(app, issuer.member(str(uuid4()), Role.OWNER)) as stranger:
        assert (await grant(stranger, budget["id"])).status_code == 404
        assert (await stranger.get(f"/billing/v1/budgets/{budget['id']}/raises")).status_code == 404


async def test_a_budget_that_blocks_is_not_raised(billing: httpx.AsyncClient, org_id: str) -> None:
    budget = await create_budget(billing, org_id)
    assert budget["at_limit"] == "block"
    refused = await grant(billing, budget["id"])
    assert (refused.status_code, refused.json()["code"]) == (409, "budget_blocks")
    changed = await billing.patch(f"/billing/v1/budgets/{budget['id']}", json={"at_limit": "require_override"})
    assert changed.json()["at_limit"] == "require_override"
    assert (await grant(billing, budget["id"])).status_code == 201


@pytest.mark.parametrize(("window", "hours"), [("rolling_24h", 24), ("rolling_30d", 720), ("day", None)])
async def test_a_raise_is_for_the_window_where_nothing_else_is_said(
    billing: httpx.AsyncClient, org_id: str, window: str, hours: float | None
) -> None:
    budget = await create_raisable(billing, org_id, window=window)
    granted = await grant(billing, budget["id"], expires_at=None)
    assert granted.status_code == 201, granted.text
    expires_at = datetime.fromisoformat(granted.json()["expires_at"])
    if hours is None:
        assert expires_at == datetime.fromisoformat(budget["window_ends_at"])
    else:
        created_at = datetime.fromisoformat(granted.json()["created_at"])
        assert timedelta(hours=hours, seconds=-1) < expires_at - created_at <= timedelta(hours=hours)


async def test_a_raise_of_a_budget_without_end_needs_one(billing: httpx.AsyncClient, org_id: str) -> None:
    budget = await create_raisable(billing, org_id, window="total")
    refused = await grant(billing, budget["id"], expires_at=None)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/expires_at")


async def test_who_may_only_look_at_budgets_does_not_raise_them(
    run_billing: RunningBilling, issuer: TokenIssuer, billing: httpx.AsyncClient, org_id: str
) -> None:
    budget = await create_raisable(billing, org_id)
    async with run_billing() as app:
        for role, status in ((Role.DEVELOPER, 403), (Role.VIEWER, 403), (Role.FINANCE, 201)):
            async with client_of(app, issuer.member(org_id, role)) as client:
                assert (await grant(client, budget["id"])).status_code == status, role

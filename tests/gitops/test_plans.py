"""Plans over the API, made against and applied to the real billing."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import httpx

from ias.contracts.permissions import Role
from tests.gitops.conftest import World


def outline(plan: dict[str, Any]) -> list[tuple[str, str | None, str]]:
    return [(step["action"], step["name"], step["status"]) for step in plan["steps"]]


async def test_a_plan_is_made_applied_and_then_there_is_nothing_to_do(world: World) -> None:
    await world.create_budget("10", "month")
    await world.create_budget("1.50", "day")
    documents = [
        world.document("monthly", "25"),
        world.document("daily", "1.5", "day"),
        world.document("yearly", "900", "total", "soft"),
    ]
    plan = await world.plan(*documents)
    assert outline(plan) == [
        ("update", "monthly", "pending"),
        ("unchanged", "daily", "pending"),
        ("create", "yearly", "pending"),
    ]
    assert (plan["steps"][0]["before"]["limit_usd"], plan["steps"][0]["after"]["limit_usd"]) == ("10.00", "25.00")
    assert world.door.writes == 2, "planning changes nothing"

    applied = (await world.apply(plan)).json()
    assert (applied["status"], {step["status"] for step in applied["steps"]}) == ("applied", {"done"})
    assert all(step["budget_id"] for step in applied["steps"])
    assert await world.budgets() == [
        ("org", "day", "1.50", "hard"),
        ("org", "month", "25.00", "hard"),
        ("org", "total", "900.00", "soft"),
    ]
    assert [step["action"] for step in (await world.plan(*documents))["steps"]] == ["unchanged"] * 3
    shown = await world.gitops.get(f"/gitops/v1/plans/{plan['id']}", headers=world.owner)
    assert shown.json() == applied


async def test_a_rolling_budget_and_what_becomes_of_what_it_refuses_can_be_declared(world: World) -> None:
    declared = world.document("last-week", "25", "rolling_7d")
    assert (await world.apply(await world.plan(declared))).json()["status"] == "applied"
    declared["spec"]["at_limit"] = "require_override"
    changed = await world.plan(declared)
    [step] = changed["steps"]
    assert (step["action"], step["before"]["at_limit"], step["after"]["at_limit"]) == (
        "update",
        "block",
        "require_override",
    )
    assert (await world.apply(changed)).json()["status"] == "applied"
    assert await world.budgets() == [("org", "rolling_7d", "25.00", "hard")]
    assert [step["action"] for step in (await world.plan(declared))["steps"]] == ["unchanged"]


async def test_applying_again_does_nothing(world: World) -> None:
    plan = await world.plan(world.document("monthly", "25"))
    first = await world.apply(plan)
    again = await world.apply(plan)
    assert (again.status_code, again.json()) == (200, first.json())
    assert world.door.writes == 1


async def test_what_no_document_speaks_of_is_left_alone_or_pruned(world: World) -> None:
    await world.create_budget("5", "week")
    kept = await world.plan(world.document("monthly", "25"))
    assert outline(kept)[1] == ("leave", None, "pending")
    assert (await world.apply(kept)).json()["status"] == "applied"
    assert len(await world.budgets()) == 2
    pruned = await world.plan(world.document("monthly", "25"), prune=True)
    assert [step["action"] for step in pruned["steps"]] == ["unchanged", "delete"]
    assert (await world.apply(pruned)).json()["status"] == "applied"
    assert await world.budgets() == [("org", "month", "25.00", "hard")]


async def test_what_the_platform_set_is_in_the_plans_of_the_platform_alone(world: World) -> None:
    platform = world.issuer.platform_admin()
    body = {"org_id": world.org_id, **world.document("ceiling", "100", "total")["spec"]}
    assert (await world.billing.post("/billing/v1/budgets", json=body, headers=platform)).status_code == 201

    assert outline(await world.plan(world.document("monthly", "25"), prune=True)) == [("create", "monthly", "pending")]
    world.owner = platform
    planned = outline(await world.plan(world.document("monthly", "25"), prune=True))
    assert planned == [("create", "monthly", "pending"), ("delete", None, "pending")]


async def test_an_application_that_broke_off_goes_on_where_it_stopped(world: World) -> None:
    documents = [world.document(window, "1", window) for window in ("day", "week", "month")]
    plan = await world.plan(*documents)
    world.door.fail_from_write = 2
    broken = (await world.apply(plan)).json()
    assert broken["status"] == "failed"
    assert [step["status"] for step in broken["steps"]] == ["done", "failed", "pending"]
    assert broken["steps"][1]["detail"]
    world.door.fail_from_write = None
    healed = (await world.apply(plan)).json()
    assert healed["status"] == "applied"
    assert [step["status"] for step in healed["steps"]] == ["done"] * 3
    assert len(await world.budgets()) == 3


async def test_a_step_whose_answer_was_lost_is_not_done_twice(world: World) -> None:
    plan = await world.plan(world.document("monthly", "25"))
    world.door.lose_answer_of_write = 1
    assert (await world.apply(plan)).json()["steps"][0]["status"] == "failed"
    assert await world.budgets() == [("org", "month", "25.00", "hard")]
    healed = (await world.apply(plan)).json()
    assert (healed["status"], world.door.writes) == ("applied", 1)
    assert healed["steps"][0]["budget_id"]
    assert len(await world.budgets()) == 1


async def test_a_plan_whose_ground_has_changed_is_not_applied_at_all(world: World) -> None:
    await world.create_budget("10", "month")
    plan = await world.plan(world.document("daily", "1", "day"), world.document("monthly", "25"))
    (monthly,) = [step["budget_id"] for step in plan["steps"] if step["name"] == "monthly"]
    await world.billing.patch(f"/billing/v1/budgets/{monthly}", json={"limit_usd": "11"}, headers=world.owner)
    writes = world.door.writes
    answer = await world.apply(plan)
    assert (answer.status_code, answer.json()["code"]) == (409, "plan_outdated")
    assert "monthly" in answer.json()["detail"]
    assert world.door.writes == writes
    assert await world.budgets() == [("org", "month", "11.00", "hard")]


async def test_one_plan_is_applied_to_an_org_at_a_time(world: World) -> None:
    plans = [await world.plan(world.document("monthly", str(limit))) for limit in (1, 2)]
    answers = await asyncio.gather(*(world.apply(plan) for plan in plans for _ in range(3)))
    codes = [answer.json().get("code", answer.json().get("status")) for answer in answers]
    assert set(codes) <= {"applied", "applying", "plan_outdated"}
    assert "applied" in codes
    assert len(await world.budgets()) == 1


async def test_a_document_that_is_not_valid_is_named_and_no_plan_kept(world: World) -> None:
    documents = [world.document("monthly", "1"), world.document("daily", "1", "century")]
    body = {"org_id": world.org_id, "documents": documents}
    answer = await world.gitops.post("/gitops/v1/plans", json=body, headers=world.owner)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_document")
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/documents/1/spec/window"]
    for wrong in ({}, body | {"documents": []}, body | {"prune": "yes"}, body | {"force": True}):
        assert (await world.gitops.post("/gitops/v1/plans", json=wrong, headers=world.owner)).status_code == 422


async def test_another_orgs_plans_are_as_good_as_absent(world: World) -> None:
    plan = await world.plan(world.document("monthly", "1"))
    stranger = world.issuer.member(str(uuid4()), Role.OWNER)
    path = f"/gitops/v1/plans/{plan['id']}"
    absent = await world.gitops.get(f"/gitops/v1/plans/{uuid4()}", headers=stranger)
    for answer in (
        await world.gitops.get(path, headers=stranger),
        await world.gitops.post(f"{path}/apply", headers=stranger),
        await world.gitops.get("/gitops/v1/plans", params={"org_id": world.org_id}, headers=stranger),
    ):
        assert answer.status_code == 404
        assert answer.json()["detail"] == absent.json()["detail"]


async def test_roles_without_desired_state_neither_read_nor_write_it(world: World) -> None:
    plan = await world.plan(world.document("monthly", "1"))
    path = f"/gitops/v1/plans/{plan['id']}"
    for role in (Role.DEVELOPER, Role.FINANCE, Role.VIEWER):
        await assert_forbidden(world, path, role)
    assert (await world.gitops.get(path)).status_code == 401


async def assert_forbidden(world: World, path: str, role: Role) -> None:
    headers = world.issuer.member(world.org_id, role)
    body = {"org_id": world.org_id, "documents": [world.document("monthly", "1")]}
    for answer in (
        await world.gitops.post("/gitops/v1/plans", json=body, headers=headers),
        await world.gitops.post(f"{path}/apply", headers=headers),
        await world.gitops.get(path, headers=headers),
        await world.gitops.get("/gitops/v1/plans", params={"org_id": world.org_id}, headers=headers),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


async def test_billing_is_asked_in_the_callers_own_name(world: World) -> None:
    """Gitops has no rights of its own: what billing refuses the caller, it refuses gitops."""
    plan = await world.plan(world.document("monthly", "1"))
    seen: list[bytes] = []
    app = world.door._app

    async def remember(scope: Any, receive: Any, send: Any) -> None:
        seen.append(dict(scope["headers"])[b"authorization"])
        await app(scope, receive, send)

    world.door._app = remember  # type: ignore[assignment]
    await world.apply(plan)
    assert set(seen) == {world.owner["Authorization"].encode()}
    assert len(seen) == 2


async def test_plans_come_in_pages_without_their_steps(world: World) -> None:
    made = [(await world.plan(world.document("monthly", str(n + 1))))["id"] for n in range(3)]
    query: dict[str, Any] = {"org_id": world.org_id, "limit": 2}
    first = (await world.gitops.get("/gitops/v1/plans", params=query, headers=world.owner)).json()
    query["cursor"] = first["next_cursor"]
    second = (await world.gitops.get("/gitops/v1/plans", params=query, headers=world.owner)).json()
    assert {plan["id"] for plan in first["data"] + second["data"]} == set(made)
    assert second["next_cursor"] is None
    assert "steps" not in first["data"][0]


async def test_billing_away_is_503_and_keeps_no_plan(world: World) -> None:
    plans = world.gitops._transport.app.state.plans  # type: ignore[attr-defined]
    plans._billing._url = "http://127.0.0.1:1/billing/v1/budgets"
    body = {"org_id": world.org_id, "documents": [world.document("monthly", "1")]}
    answer = await world.gitops.post("/gitops/v1/plans", json=body, headers=world.owner)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert "127.0.0.1" not in answer.text
    listed: httpx.Response = await world.gitops.get(
        "/gitops/v1/plans", params={"org_id": world.org_id}, headers=world.owner
    )
    assert json.loads(listed.text)["data"] == []

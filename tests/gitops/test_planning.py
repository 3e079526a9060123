"""The plan is a pure function: golden cases, and what holds for all."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ias.gitops.core.documents import BudgetSpec, DesiredBudget, read_spec
from ias.gitops.core.planning import ActualBudget, digest, judge, plan
from ias.gitops.store.plans import Step

ORG = str(UUID(int=1))


def spec(limit: int = 100, window: Any = "month", mode: Any = "hard", scope_id: str = ORG) -> BudgetSpec:
    return BudgetSpec(
        scope_kind="org" if scope_id == ORG else "model",
        scope_id=scope_id,
        window=window,
        limit_nano_usd=limit,
        mode=mode,
    )


def want(name: str, **more: Any) -> DesiredBudget:
    return DesiredBudget(name=name, spec=spec(**more))


def have(budget_id: str, **more: Any) -> ActualBudget:
    return ActualBudget(id=budget_id, spec=spec(**more))


@pytest.mark.parametrize(
    ("desired", "actual", "prune", "planned"),
    [
        ([], [], True, []),
        ([want("a")], [], False, [("create", "a", None)]),
        ([want("a")], [have("1")], False, [("unchanged", "a", "1")]),
        ([want("a", limit=2)], [have("1", limit=1)], False, [("update", "a", "1")]),
        ([want("a", mode="soft")], [have("1", mode="hard")], False, [("update", "a", "1")]),
        ([want("a")], [have("1"), have("2", window="day")], False, [("unchanged", "a", "1"), ("leave", None, "2")]),
        ([want("a")], [have("1"), have("2", window="day")], True, [("unchanged", "a", "1"), ("delete", None, "2")]),
        ([want("a")], [have("1", window="day")], True, [("create", "a", None), ("delete", None, "1")]),
        ([want("a")], [have("1", scope_id="m")], True, [("create", "a", None), ("delete", None, "1")]),
        # two of one scope and window: each finds the one of its own mode, whatever their order
        (
            [want("alert", mode="soft", limit=80), want("stop", limit=100)],
            [have("1", limit=90), have("2", mode="soft", limit=70)],
            True,
            [("update", "alert", "2"), ("update", "stop", "1")],
        ),
        # duplicates in billing: the one that is right already is kept
        (
            [want("a", limit=5)],
            [have("1", limit=4), have("2", limit=5), have("3", limit=6)],
            True,
            [("unchanged", "a", "2"), ("delete", None, "1"), ("delete", None, "3")],
        ),
        # one of the right mode is preferred to one whose mode would have to change
        (
            [want("a", limit=5)],
            [have("1", mode="soft", limit=5), have("2", limit=6)],
            False,
            [("update", "a", "2"), ("leave", None, "1")],
        ),
    ],
)
def test_plans_are_these(
    desired: list[DesiredBudget], actual: list[ActualBudget], prune: bool, planned: list[tuple[Any, ...]]
) -> None:
    steps = plan(desired, actual, prune=prune)
    assert [(step.action, step.name, step.budget_id) for step in steps] == planned
    assert [step.position for step in steps] == list(range(len(steps)))


SPECS = st.builds(
    spec,
    limit=st.integers(0, 3),
    window=st.sampled_from(["day", "month"]),
    mode=st.sampled_from(["hard", "soft"]),
    scope_id=st.sampled_from([ORG, "m"]),
)
DESIRED = st.lists(SPECS, max_size=6, unique_by=lambda s: (s.place, s.mode)).map(
    lambda specs: [DesiredBudget(name=f"d{n}", spec=s) for n, s in enumerate(specs)]
)
ACTUAL = st.lists(SPECS, max_size=6).map(lambda specs: [ActualBudget(id=f"b{n}", spec=s) for n, s in enumerate(specs)])


def follow(steps: list[Step], actual: list[ActualBudget], count: int | None = None) -> list[ActualBudget]:
    """What there is after the first `count` steps were done, as billing would do them."""
    budgets = {budget.id: budget for budget in actual}
    for step in steps[:count]:
        match step.action:
            case "create":
                budgets[f"new{step.position}"] = ActualBudget(
                    id=f"new{step.position}", spec=read_spec(step.after or {})
                )
            case "update":
                assert budgets[step.budget_id or ""].spec.place == read_spec(step.after or {}).place
                budgets[step.budget_id or ""] = ActualBudget(id=step.budget_id or "", spec=read_spec(step.after or {}))
            case "delete":
                del budgets[step.budget_id or ""]
    return list(budgets.values())


@given(DESIRED, ACTUAL, st.booleans())
def test_a_plan_that_was_followed_leaves_nothing_to_do(
    desired: list[DesiredBudget], actual: list[ActualBudget], prune: bool
) -> None:
    after = follow(plan(desired, actual, prune=prune), actual)
    assert {step.action for step in plan(desired, after, prune=prune)} <= {"unchanged", "leave"}
    specs = [budget.spec for budget in after]
    assert all(budget.spec in specs for budget in desired)
    if prune:
        assert len(after) == len(desired)


@given(DESIRED, ACTUAL, st.randoms(use_true_random=False))
def test_the_order_in_which_billing_lists_does_not_matter(
    desired: list[DesiredBudget], actual: list[ActualBudget], random: Any
) -> None:
    shuffled = list(actual)
    random.shuffle(shuffled)
    assert digest(plan(desired, actual, prune=True)) == digest(plan(desired, shuffled, prune=True))


@given(DESIRED, ACTUAL, st.booleans())
def test_no_budget_is_in_two_steps(desired: list[DesiredBudget], actual: list[ActualBudget], prune: bool) -> None:
    steps = plan(desired, actual, prune=prune)
    spoken_of = [step.budget_id for step in steps if step.budget_id]
    assert sorted(spoken_of) == sorted(budget.id for budget in actual)


@given(DESIRED, ACTUAL, st.booleans(), st.integers(0, 12))
def test_wherever_an_application_broke_off_unrecorded_the_rest_and_only_the_rest_is_to_do(
    desired: list[DesiredBudget], actual: list[ActualBudget], prune: bool, count: int
) -> None:
    steps = plan(desired, actual, prune=prune)
    verdicts = judge(steps, follow(steps, actual, count))
    idle = {"unchanged", "leave"}
    for verdict in verdicts:
        is_over = verdict.step.position < count or verdict.step.action in idle
        assert verdict.state == ("satisfied" if is_over else "to do")


@given(DESIRED, ACTUAL)
def test_recorded_steps_are_not_judged_again(desired: list[DesiredBudget], actual: list[ActualBudget]) -> None:
    steps = [replace(step, status="done") for step in plan(desired, actual, prune=True)]
    assert judge(steps, actual) == []


@pytest.mark.parametrize(
    ("desired", "planned_with", "now"),
    [
        ([want("a", limit=2)], [have("1", limit=1)], [have("1", limit=9)]),
        ([want("a", limit=2)], [have("1", limit=1)], []),
        ([want("a")], [have("1")], []),
        ([want("a")], [have("1")], [have("1", limit=9)]),
        ([want("a")], [], [have("new", limit=9)]),
        ([want("a")], [have("1"), have("2", window="day")], [have("1"), have("2", window="day", limit=9)]),
    ],
)
def test_what_somebody_else_changed_makes_the_step_outdated(
    desired: list[DesiredBudget], planned_with: list[ActualBudget], now: list[ActualBudget]
) -> None:
    steps = plan(desired, planned_with, prune=True)
    assert "outdated" in {verdict.state for verdict in judge(steps, now)}

"""The plan from what there is to what is declared, and whether it can still be followed. Pure functions.

A budget is known by its scope and window, which cannot be changed. Among budgets of one scope and window, those of the same mode
belong together first; then any that are left over on both sides, as a change of mode; what is left after that is created, or
deleted when pruning was asked for.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from json import dumps
from typing import Literal

from ias.gitops.core.documents import BudgetSpec, DesiredBudget, read_spec
from ias.gitops.store.plans import Action, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class ActualBudget:
    """A budget that billing has."""

    id: str
    spec: BudgetSpec


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a pending step has come to by now."""

    step: Step
    state: Literal["to do", "satisfied", "outdated"]
    budget_id: str | None = None
    """Of a satisfied step: the budget that satisfies it."""


def plan(desired: Sequence[DesiredBudget], actual: Sequence[ActualBudget], *, prune: bool) -> list[Step]:
    """The steps, documents first in their order, then budgets that no document speaks of by id."""
    partners = _match(desired, actual)
    steps: list[Step] = []
    for budget in desired:
        steps.append(_plan_one(len(steps), budget, partners.get(budget.name)))
    taken = {partner.id for partner in partners.values()}
    for extra in sorted((budget for budget in actual if budget.id not in taken), key=lambda budget: budget.id):
        action: Action = "delete" if prune else "leave"
        after = None if prune else extra.spec
        steps.append(_step(len(steps), action, None, budget_id=extra.id, before=extra.spec, after=after))
    return steps


def digest(steps: Iterable[Step]) -> str:
    """SHA-256 over what the steps do."""
    told = [[step.action, step.name, step.budget_id, step.before, step.after] for step in steps]
    return sha256(dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def judge(steps: Sequence[Step], actual: Sequence[ActualBudget]) -> list[Verdict]:
    """What each pending step has come to, given what there is now.

    A step is satisfied when its outcome is there already: it was done before and only its record was lost. It is outdated when
    somebody else has changed what it starts from.
    """
    present = {budget.id: budget.spec for budget in actual}
    planned_with = {step.budget_id for step in steps if step.budget_id is not None}
    newcomers = [budget for budget in actual if budget.id not in planned_with]
    return [_judge(step, present, newcomers) for step in steps if step.status != "done"]


def _judge(step: Step, present: dict[str, BudgetSpec], newcomers: list[ActualBudget]) -> Verdict:
    if step.action == "create":
        return _judge_create(step, newcomers)
    found = present.get(step.budget_id or "")
    before = read_spec(step.before) if step.before else None
    after = read_spec(step.after) if step.after else None
    if step.action in {"unchanged", "leave"} or found == after:
        is_as_planned = found == after or step.action == "leave"
        return Verdict(step, "satisfied" if is_as_planned else "outdated", step.budget_id)
    return Verdict(step, "to do" if found == before else "outdated")


def _judge_create(step: Step, newcomers: list[ActualBudget]) -> Verdict:
    wanted = read_spec(step.after) if step.after else None
    same = next((budget for budget in newcomers if budget.spec == wanted), None)
    if same:
        return Verdict(step, "satisfied", same.id)
    in_its_place = [
        budget
        for budget in newcomers
        if wanted and (budget.spec.place, budget.spec.mode) == (wanted.place, wanted.mode)
    ]
    return Verdict(step, "outdated" if in_its_place else "to do")


def _match(desired: Sequence[DesiredBudget], actual: Sequence[ActualBudget]) -> dict[str, ActualBudget]:
    """The budget that each document speaks of, by the document's name."""
    free = sorted(actual, key=lambda budget: budget.id)
    partners: dict[str, ActualBudget] = {}
    preferences = (
        lambda spec: (spec,),  # exactly so
        lambda spec: (spec.place, spec.mode),  # another limit
        lambda spec: (spec.place,),  # another mode
    )
    for key_of in preferences:
        for budget in desired:
            if budget.name in partners:
                continue
            partner = next((other for other in free if key_of(other.spec) == key_of(budget.spec)), None)
            if partner:
                partners[budget.name] = partner
                free.remove(partner)
    return partners


def _plan_one(position: int, budget: DesiredBudget, partner: ActualBudget | None) -> Step:
    if partner is None:
        return _step(position, "create", budget.name, budget_id=None, before=None, after=budget.spec)
    action: Action = "unchanged" if partner.spec == budget.spec else "update"
    return _step(position, action, budget.name, budget_id=partner.id, before=partner.spec, after=budget.spec)


def _step(
    position: int,
    action: Action,
    name: str | None,
    *,
    budget_id: str | None,
    before: BudgetSpec | None,
    after: BudgetSpec | None,
) -> Step:
    return Step(
        position=position,
        action=action,
        name=name,
        budget_id=budget_id,
        before=before.render() if before else None,
        after=after.render() if after else None,
        status="pending",
    )

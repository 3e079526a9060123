"""Plans: made from documents and what billing has, kept, and applied step by step.

Applying is idempotent. It looks at what there is before it does anything: what was done already is noted as done, and when
somebody else changed what the plan starts from, nothing is done at all. Each step is recorded as soon as it is over, so an
application that was cut off continues where it stopped.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog

from ias.contracts.ids import uuid7
from ias.gitops.core.billing_budgets import BillingBudgets, Caller
from ias.gitops.core.documents import Documents, read_spec
from ias.gitops.core.planning import Verdict, digest, judge, plan
from ias.gitops.store import apply_leases, plans
from ias.gitops.store.plans import Plan, PlanStatus, Step
from ias.kit.access import OrgScope
from ias.kit.audit import Change
from ias.kit.database import Database
from ias.kit.outbox import append
from ias.kit.problems import ConflictError, NotFoundError, ProblemError
from ias.kit.writes import is_dry_run, note_change

log = structlog.get_logger("ias.gitops")

_LEASE_MARGIN_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPlan:
    """What a plan is asked for with."""

    documents: list[dict[str, Any]]
    prune: bool


class Plans:
    """Makes, shows and applies plans."""

    def __init__(
        self, database: Database, billing: BillingBudgets, documents: Documents, *, apply_timeout_s: float
    ) -> None:
        self._database = database
        self._billing = billing
        self._documents = documents
        self._apply_timeout_s = apply_timeout_s

    async def create_plan(self, scope: OrgScope, new: NewPlan, caller: Caller) -> Plan:
        """The plan from what the org has to what the documents declare; nothing is changed but that the plan is kept.

        Raises:
            InvalidError: a document is not valid.
            ProblemError: billing refused, or does not answer.
        """
        org_id = UUID(scope.org_id)
        desired = self._documents.read(new.documents, org_id)
        steps = plan(desired, await self._billing.list_all(org_id, caller), prune=new.prune)
        made = Plan(
            id=uuid7(),
            org_id=org_id,
            status="planned",
            prune=new.prune,
            documents=new.documents,
            digest=digest(steps),
            created_at=datetime.now(UTC),
            created_by=caller.actor,
            request_id=caller.request_id,
            applied_at=None,
            applied_by=None,
            steps=steps,
        )
        async with self._database.transaction() as connection:
            await plans.insert_plan(connection, made)
            told = {"prune": made.prune, "steps": len(made.steps)}
            await append(connection, "gitops", scope.cause, Change("plan.create", made.id, org_id, after=told))
        return made

    async def get_plan(self, plan_id: UUID) -> Plan:
        """A plan of whichever org: the caller still has to show that they may see it. Raises NotFoundError."""
        async with self._database.transaction() as connection:
            found = await plans.find_plan(connection, plan_id)
        if found is None:
            raise NotFoundError
        return found

    async def list_plans(self, scope: OrgScope, *, after: UUID | None, limit: int) -> list[Plan]:
        """The org's plans without their steps, newest first, after an id."""
        async with self._database.transaction() as connection:
            return await plans.list_plans(connection, UUID(scope.org_id), after=after, limit=limit)

    async def apply_plan(self, scope: OrgScope, plan_id: UUID, caller: Caller) -> Plan:
        """The plan after its pending steps were done in order. A step that fails ends it; applying again goes on from there.

        Raises:
            NotFoundError: the org has no such plan.
            ConflictError: a plan of the org is being applied; or what the plan starts from has changed.
            ProblemError: billing refused to say what there is, or does not answer.
        """
        found = await self.get_plan(plan_id)
        if str(found.org_id) != scope.org_id:
            raise NotFoundError
        if is_dry_run():
            await self._rehearse(found, caller)
            return found
        async with self._lease(found.org_id):
            found = await self.get_plan(plan_id)
            if found.status != "applied":
                await self._apply(scope, found, caller)
        return await self.get_plan(plan_id)

    async def _rehearse(self, found: Plan, caller: Caller) -> None:
        if found.status == "applied":
            return
        for verdict in await self._judge(found, caller):
            step = verdict.step
            if verdict.state == "to do" and step.action in ("create", "update", "delete"):
                target = step.budget_id or step.name or ""
                note_change(f"budget.{step.action}", target, before=step.before, after=step.after)

    async def _judge(self, found: Plan, caller: Caller) -> list[Verdict]:
        verdicts = judge(found.steps, await self._billing.list_all(found.org_id, caller))
        outdated = [verdict.step for verdict in verdicts if verdict.state == "outdated"]
        if outdated:
            told = ", ".join(step.name or step.budget_id or "" for step in outdated[:5])
            raise ConflictError(f"What the plan starts from has changed ({told}). Plan again.", code="plan_outdated")
        return verdicts

    async def _apply(self, scope: OrgScope, found: Plan, caller: Caller) -> None:
        verdicts = await self._judge(found, caller)
        status: PlanStatus = "applied"
        try:
            async with asyncio.timeout(self._apply_timeout_s):
                for verdict in verdicts:
                    done = await self._do(found, verdict, caller)
                    await self._note_step(found, done)
                    if done.status == "failed":
                        status = "failed"
                        break
        except TimeoutError:
            status = "failed"
        async with self._database.transaction() as connection:
            await plans.update_plan_status(connection, found.id, status, at=datetime.now(UTC), by=caller.actor)
            change = Change("plan.apply", found.id, found.org_id, {"status": found.status}, {"status": status})
            await append(connection, "gitops", scope.cause, change)
        log.info("a plan was applied", plan_id=str(found.id), status=status)

    async def _do(self, found: Plan, verdict: Verdict, caller: Caller) -> Step:
        """The step as it is after it was done, or failed."""
        step = verdict.step
        now = datetime.now(UTC)
        if verdict.state == "satisfied":
            return replace(step, status="done", detail=None, done_at=now, budget_id=verdict.budget_id)
        try:
            budget_id = await self._change_billing(found, step, caller)
        except ProblemError as error:
            log.warning("a step of a plan failed", plan_id=str(found.id), position=step.position, code=error.code)
            return replace(step, status="failed", detail=error.detail)
        return replace(step, status="done", detail=None, done_at=now, budget_id=budget_id)

    async def _change_billing(self, found: Plan, step: Step, caller: Caller) -> str | None:
        if step.action == "delete" and step.budget_id:
            await self._billing.delete(step.budget_id, caller)
        elif step.action == "update" and step.budget_id and step.after:
            await self._billing.change(step.budget_id, read_spec(step.after), caller)
        elif step.action == "create" and step.after:
            return await self._billing.create(found.org_id, read_spec(step.after), caller)
        return step.budget_id

    async def _note_step(self, found: Plan, step: Step) -> None:
        async with self._database.transaction() as connection:
            await plans.update_step(connection, found.id, step)

    @asynccontextmanager
    async def _lease(self, org_id: UUID) -> AsyncIterator[None]:
        holder = uuid7()
        lifetime_s = self._apply_timeout_s + _LEASE_MARGIN_S
        async with self._database.transaction() as connection:
            if not await apply_leases.take_lease(connection, org_id, holder, lifetime_s):
                raise ConflictError("A plan is being applied to this org. Try again when it is over.", code="applying")
        try:
            yield
        finally:
            async with self._database.transaction() as connection:
                await apply_leases.give_lease_back(connection, org_id, holder)

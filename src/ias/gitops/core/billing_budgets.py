"""Budgets as billing has them, over its REST API and in the name of the caller: who may not do it there may not do it here."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx

from ias.contracts.money import InvalidAmountError
from ias.gitops.core.documents import BudgetSpec, read_spec
from ias.gitops.core.planning import ActualBudget
from ias.kit.problems import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    ProblemError,
    UnauthenticatedError,
    UnavailableError,
)

_PATH = "/billing/v1/budgets"
_PAGE_SIZE = 200
_PAGES_MAX = 50
_REFUSALS: dict[int, type[ProblemError]] = {
    400: InvalidError,
    401: UnauthenticatedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    422: InvalidError,
}


@dataclass(frozen=True, slots=True)
class Caller:
    """In whose name billing is asked."""

    actor: str
    is_platform: bool
    token: str
    request_id: str


class BillingBudgets:
    """The budgets of orgs, in billing.

    Every method raises the problem that billing answered with, and UnavailableError when it does not answer as it should.
    """

    def __init__(self, client: httpx.AsyncClient, billing_url: str) -> None:
        self._client = client
        self._url = billing_url.rstrip("/") + _PATH

    async def list_all(self, org_id: UUID, caller: Caller) -> list[ActualBudget]:
        """All budgets of an org that the caller may change: those that the platform set are its administrators' alone."""
        budgets: list[ActualBudget] = []
        query: dict[str, str] = {"org_id": str(org_id), "limit": str(_PAGE_SIZE)}
        for _ in range(_PAGES_MAX):
            page = await self._ask("GET", self._url, caller, query=query)
            try:
                budgets += [
                    ActualBudget(id=str(item["id"]), spec=read_spec(item))
                    for item in page["data"]
                    if caller.is_platform or not item["set_by_platform"]
                ]
                cursor = page["next_cursor"]
            except (KeyError, TypeError, InvalidAmountError) as error:
                raise UnavailableError("Billing's list of budgets cannot be understood.") from error
            if cursor is None:
                return budgets
            query["cursor"] = str(cursor)
        raise UnavailableError("Billing has more budgets of the org than can be planned with.")

    async def create(self, org_id: UUID, spec: BudgetSpec, caller: Caller) -> str:
        """A new budget; its id."""
        created = await self._ask("POST", self._url, caller, body={"org_id": str(org_id), **spec.render()})
        if not isinstance(created, dict) or "id" not in created:
            raise UnavailableError("Billing's answer cannot be understood.")
        return str(created["id"])

    async def change(self, budget_id: str, spec: BudgetSpec, caller: Caller) -> None:
        """Give a budget another limit, and say what happens at it."""
        told = spec.render()
        body = {name: told[name] for name in ("limit_usd", "mode", "at_limit")}
        await self._ask("PATCH", f"{self._url}/{UUID(budget_id)}", caller, body=body)

    async def delete(self, budget_id: str, caller: Caller) -> None:
        """Take a budget away; one that is gone already is no error."""
        try:
            await self._ask("DELETE", f"{self._url}/{UUID(budget_id)}", caller)
        except NotFoundError:
            return

    async def _ask(
        self,
        method: str,
        url: str,
        caller: Caller,
        *,
        query: dict[str, str] | None = None,
        body: dict[str, Any] | None = None,
    ) -> Any:
        headers = {"Authorization": f"Bearer {caller.token}", "x-request-id": caller.request_id}
        try:
            answer = await self._client.request(method, url, params=query, json=body, headers=headers)
            if answer.is_success:
                return answer.json() if answer.content else None
            told = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise UnavailableError("Billing does not answer as it should.") from error
        refusal = _REFUSALS.get(answer.status_code)
        if refusal is None or not isinstance(told, dict):
            raise UnavailableError(f"Billing answered {answer.status_code}.")
        raise refusal(f"Billing: {told.get('detail', answer.status_code)}", code=str(told.get("code", refusal.code)))

"""How routes get at the service's parts, which `wiring` put into the app's state."""

from typing import Annotated

from fastapi import Depends, Request

from ias.billing.core.adjustments import Adjustments
from ias.billing.core.alert_channels import AlertChannels
from ias.billing.core.alerts import Alerts
from ias.billing.core.budget_raises import BudgetRaises
from ias.billing.core.budgets import Budgets
from ias.billing.core.ledger import Ledger
from ias.billing.core.prices import Prices
from ias.billing.core.rate_limits import RateLimits
from ias.billing.core.reconciliation import Reconciler
from ias.billing.core.reratings import Reratings
from ias.billing.core.spending_settings import SpendingSettingsRules
from ias.billing.core.statements import Statements
from ias.kit.cursors import Cursors


async def _adjustments(request: Request) -> Adjustments:
    part: Adjustments = request.app.state.adjustments
    return part


async def _alert_channels(request: Request) -> AlertChannels:
    part: AlertChannels = request.app.state.alert_channels
    return part


async def _alerts(request: Request) -> Alerts:
    part: Alerts = request.app.state.alerts
    return part


async def _budgets(request: Request) -> Budgets:
    part: Budgets = request.app.state.budgets
    return part


async def _budget_raises(request: Request) -> BudgetRaises:
    part: BudgetRaises = request.app.state.budget_raises
    return part


async def _cursors(request: Request) -> Cursors:
    part: Cursors = request.app.state.cursors
    return part


async def _ledger(request: Request) -> Ledger:
    part: Ledger = request.app.state.ledger
    return part


async def _rate_limits(request: Request) -> RateLimits:
    part: RateLimits = request.app.state.rate_limits
    return part


async def _reratings(request: Request) -> Reratings:
    part: Reratings = request.app.state.reratings
    return part


async def _spending_settings(request: Request) -> SpendingSettingsRules:
    part: SpendingSettingsRules = request.app.state.spending_settings
    return part


async def _reconciler(request: Request) -> Reconciler:
    part: Reconciler = request.app.state.reconciler
    return part


async def _statements(request: Request) -> Statements:
    part: Statements = request.app.state.statements
    return part


async def _prices(request: Request) -> Prices:
    part: Prices = request.app.state.prices
    return part


AdjustmentsPart = Annotated[Adjustments, Depends(_adjustments)]
AlertChannelsPart = Annotated[AlertChannels, Depends(_alert_channels)]
AlertsPart = Annotated[Alerts, Depends(_alerts)]
BudgetRaisesPart = Annotated[BudgetRaises, Depends(_budget_raises)]
BudgetsPart = Annotated[Budgets, Depends(_budgets)]
CursorsPart = Annotated[Cursors, Depends(_cursors)]
LedgerPart = Annotated[Ledger, Depends(_ledger)]
RateLimitsPart = Annotated[RateLimits, Depends(_rate_limits)]
ReratingsPart = Annotated[Reratings, Depends(_reratings)]
SpendingSettingsPart = Annotated[SpendingSettingsRules, Depends(_spending_settings)]
ReconcilerPart = Annotated[Reconciler, Depends(_reconciler)]
StatementsPart = Annotated[Statements, Depends(_statements)]
PricesPart = Annotated[Prices, Depends(_prices)]

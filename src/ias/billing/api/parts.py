"""How routes get at the service's parts, which `wiring` put into the app's state."""

from typing import Annotated

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
from ias.kit.parts import part

AdjustmentsPart = Annotated[Adjustments, part("adjustments")]
AlertChannelsPart = Annotated[AlertChannels, part("alert_channels")]
AlertsPart = Annotated[Alerts, part("alerts")]
BudgetRaisesPart = Annotated[BudgetRaises, part("budget_raises")]
BudgetsPart = Annotated[Budgets, part("budgets")]
CursorsPart = Annotated[Cursors, part("cursors")]
LedgerPart = Annotated[Ledger, part("ledger")]
RateLimitsPart = Annotated[RateLimits, part("rate_limits")]
ReratingsPart = Annotated[Reratings, part("reratings")]
SpendingSettingsPart = Annotated[SpendingSettingsRules, part("spending_settings")]
ReconcilerPart = Annotated[Reconciler, part("reconciler")]
StatementsPart = Annotated[Statements, part("statements")]
PricesPart = Annotated[Prices, part("prices")]

"""How routes get at the service's parts, which `wiring` put into the app's state."""

from typing import Annotated

from ias.gitops.core.plans import Plans
from ias.kit.cursors import Cursors
from ias.kit.parts import part

CursorsPart = Annotated[Cursors, part("cursors")]
PlansPart = Annotated[Plans, part("plans")]

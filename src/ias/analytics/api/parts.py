"""How routes get at the service's parts, which `wiring` put into the app's state."""

from typing import Annotated

from ias.analytics.core.usage import Usage
from ias.kit.cursors import Cursors
from ias.kit.parts import part

UsagePart = Annotated[Usage, part("usage")]
CursorsPart = Annotated[Cursors, part("cursors")]

"""A route policy gives canaries a share of a model's requests only while the model has any.

Canaries are the model's backends of the group `canary`, and its adapters at such backends of other models.
"""

from collections.abc import Iterable
from uuid import UUID

from ias.kit.problems import ConflictError
from ias.registry.core.changes import Change
from ias.registry.store.adapters import list_adapters
from ias.registry.store.backends import Backend, has_canary
from ias.registry.store.route_policies import find_route_policy


async def list_models_of_canary(change: Change, backend: Backend) -> set[UUID]:
    """The models that a backend is a canary of, by itself or by an adapter; none where it is of another group."""
    if backend.group != "canary":
        return set()
    adapters = await list_adapters(change.connection, backend_id=backend.id)
    return {backend.model_id, *(adapter.model_id for adapter in adapters)}


async def check_canaries_left(change: Change, model_ids: Iterable[UUID]) -> None:
    """Look at what a change has left, before it is made. To kill or drain the last canary leaves it.

    Raises:
        ConflictError: one of the models has no canary any more, and its route policy gives canaries a share.
    """
    for model_id in model_ids:
        policy = await find_route_policy(change.connection, model_id)
        if policy is not None and policy.canary_percent and not await has_canary(change.connection, model_id):
            raise ConflictError(
                f"It is the last canary of the model {model_id}, and {policy.canary_percent} % of its requests go to"
                " canaries; set canary_percent of that model's route policy to 0 first.",
                code="last_canary",
            )

"""The route table's version, and its rows as of one moment."""

from dataclasses import dataclass

from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.registry.store.adapters import Adapter, list_adapters
from ias.registry.store.backends import Backend
from ias.registry.store.models import Model
from ias.registry.store.route_policies import RoutePolicy
from ias.registry.store.tables import BACKENDS, MODELS, ROUTE_POLICIES, ROUTE_TABLE_VERSION


@dataclass(frozen=True, slots=True)
class RouteRows:
    """What a route table of one version is made of."""

    version: int
    models: list[Model]
    policies: list[RoutePolicy]
    backends: list[Backend]
    adapters: list[Adapter]


async def lock_version(connection: AsyncConnection) -> int:
    """Make every other change wait until this transaction ends; gives the version before it."""
    query = select(ROUTE_TABLE_VERSION.c.version).with_for_update()
    return int((await connection.execute(query)).scalar_one())


async def set_version(connection: AsyncConnection, version: int) -> None:
    """Store the version. Only whoever holds the lock may."""
    await connection.execute(update(ROUTE_TABLE_VERSION).values(version=version))


async def get_version(connection: AsyncConnection) -> int:
    """The version of the last committed change."""
    return int((await connection.execute(select(ROUTE_TABLE_VERSION.c.version))).scalar_one())


async def read_rows(connection: AsyncConnection) -> RouteRows:
    """All that gateways may route to, as of one moment. Must be the first statement of its transaction."""
    await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
    version = await get_version(connection)
    models = await connection.execute(
        select(MODELS).where(MODELS.c.deleted_at.is_(None), MODELS.c.status != "disabled").order_by(MODELS.c.id)
    )
    policies = await connection.execute(select(ROUTE_POLICIES))
    backends = await connection.execute(select(BACKENDS).where(BACKENDS.c.deleted_at.is_(None)).order_by(BACKENDS.c.id))
    return RouteRows(
        version=version,
        models=[Model(**row) for row in models.mappings()],
        policies=[RoutePolicy(**row) for row in policies.mappings()],
        backends=[Backend(**row) for row in backends.mappings()],
        adapters=(await list_adapters(connection))[::-1],
    )

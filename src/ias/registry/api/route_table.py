"""`/registry/v1/route-table`."""

from typing import Annotated

from redis.exceptions import RedisError

from ias.contracts.permissions import Permission
from ias.kit.authorization import Access, requires
from ias.kit.problems import UnavailableError
from ias.kit.routing import Router
from ias.kit.web import Answer
from ias.registry.api.parts import RouteTablesPart

router = Router(prefix="/registry/v1/route-table", tags=["route table"])


class RouteTableAnswer(Answer):
    """Which changes gateways can see already. `pushed_version` is null when Redis holds no table."""

    version: int
    pushed_version: int | None


@router.get("")
async def get_route_table(
    access: Annotated[Access, requires(Permission.BACKENDS_READ)], tables: RouteTablesPart
) -> RouteTableAnswer:
    """Show the version of the last change, and the one that gateways see."""
    access.on_platform()
    try:
        pushed = await tables.find_pushed_version()
    except (RedisError, OSError) as error:
        raise UnavailableError("Redis does not answer.") from error
    return RouteTableAnswer(version=await tables.get_version(), pushed_version=pushed)

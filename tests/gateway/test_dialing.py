"""A backend's name is no way around the rules for addresses."""

import asyncio
import socket
from typing import Any

import pytest

from ias.gateway.dialing import Dialer
from ias.kit.addresses import AddressPolicy
from tests.gateway.conftest import StartGateway
from tests.gateway.platform import Pushed
from tests.gateway.raw_client import ask, chat
from tests.gateway.scripted_upstream import ScriptedUpstream

OPEN = AddressPolicy(allow_loopback=True, allow_private_networks=True)
PUBLIC = AddressPolicy(allow_loopback=False, allow_private_networks=False)


async def dial(policy: AddressPolicy, host: str, port: int) -> Any:
    return await Dialer(policy).dial(asyncio.Protocol, host, port, tls=None)


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names lead to, for this test."""
    known: dict[str, list[str]] = {}

    async def look_up(_: Any, host: str, *more: Any, **options: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in known[host]]

    monkeypatch.setattr(type(asyncio.get_event_loop_policy().new_event_loop()), "getaddrinfo", look_up)
    return known


async def test_a_name_is_connected_to_where_it_leads(upstream: ScriptedUpstream) -> None:
    await dial(OPEN, "localhost", upstream.port)
    await dial(OPEN, "127.0.0.1", upstream.port)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "10.0.0.1", "192.168.1.1", "::1", "169.254.169.254"])
async def test_what_the_settings_do_not_allow_is_not_connected_to(host: str) -> None:
    with pytest.raises(OSError, match="no address that may be called"):
        await dial(PUBLIC, host, 1)


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254", "0.0.0.0", "224.0.0.1"]
)
async def test_metadata_services_are_never_connected_to(resolved: dict[str, list[str]], address: str) -> None:
    resolved["engine.example"] = [address]
    with pytest.raises(OSError, match="no address that may be called"):
        await dial(OPEN, "engine.example", 80)


async def test_a_name_with_a_good_and_a_bad_address_leads_to_the_good_one(
    resolved: dict[str, list[str]], upstream: ScriptedUpstream
) -> None:
    resolved["engine.example"] = ["169.254.169.254", "127.0.0.1"]
    resolved["127.0.0.1"] = ["127.0.0.1"]
    await dial(OPEN, "engine.example", upstream.port)


async def test_a_backend_that_may_not_be_called_is_503(
    start_gateway: StartGateway, pushed: Pushed, upstream: ScriptedUpstream
) -> None:
    await pushed.everything(upstream.url)
    gateway = await start_gateway(gateway_allow_loopback=False)
    await gateway.until_ready()
    answer = await ask(gateway.port, chat(), key=pushed.key)
    assert (answer.status, answer.error["code"]) == (503, "upstream_unreachable")
    assert upstream.received == []

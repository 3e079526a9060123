"""How often a caller may ask, over all processes, and without Redis too; and who the caller is behind a proxy."""

import base64
import contextlib
from collections.abc import Callable
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ias.kit.client_addresses import find_client_address
from ias.kit.problems import TooManyRequestsError
from ias.kit.redis_documents import open_redis
from ias.kit.request_limits import Limit, RequestLimits, Standing, name_address, render_headers
from ias.kit.settings import ServiceSettings
from tests.servers.redis_process import RedisProcess

LIMIT = Limit("tests", 5)
PROXIES = [ip_network("10.0.0.0/8")]


def limits_of(url: str) -> RequestLimits:
    settings = ServiceSettings(secret_key=base64.b64encode(bytes(32)).decode(), redis_url=url)
    return RequestLimits(open_redis(url, 1.0), settings)


async def ask(limits: RequestLimits, times: int, who: str = "me") -> list[Standing]:
    """Where a caller stands after each of so many requests; refused ones count too."""
    seen: list[Standing] = []
    for _ in range(times):
        with contextlib.suppress(TooManyRequestsError):
            await limits.take(LIMIT, who, seen)
    assert all(1 <= standing.retry_after_s <= 12 for standing in seen)
    return seen


async def test_a_quota_is_shared_by_all_processes_and_each_caller_has_their_own(redis_url: str) -> None:
    one, other = limits_of(redis_url), limits_of(redis_url)
    seen = [*await ask(one, 3), *await ask(other, 4)]
    assert [standing.allowed for standing in seen] == [True] * 5 + [False] * 2
    assert [standing.remaining for standing in seen] == [4, 3, 2, 1, 0, 0, 0]
    assert (await ask(one, 1, "somebody else"))[0].remaining == 4
    await one.close()
    await other.close()


async def test_without_redis_each_process_counts_for_itself(private_redis: Callable[..., RedisProcess]) -> None:
    redis = private_redis()
    limits = limits_of(redis.url)
    assert (await ask(limits, 1))[0].remaining == 4
    redis.stop()
    seen = await ask(limits, 7)
    assert [standing.allowed for standing in seen] == [True] * 5 + [False] * 2
    await limits.close()


async def test_a_limit_of_nothing_is_no_limit(redis_url: str) -> None:
    limits, seen = limits_of(redis_url), []
    for _ in range(20):
        await limits.take(Limit("tests", 0), "me", seen)
    assert seen == []
    await limits.close()


def test_headers_tell_each_limit_that_applies() -> None:
    standings = [Standing(Limit("address", 600), True, 0.1), Standing(Limit("writes", 60), True, 59.2)]
    assert dict(render_headers(standings)) == {
        b"ratelimit-policy": b'"address";q=600;w=60, "writes";q=60;w=60',
        b"ratelimit": b'"address";r=599;t=1, "writes";r=0;t=60',
    }
    assert render_headers([]) == []


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("203.0.113.7", ["198.51.100.1"], "203.0.113.7"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["192.0.2.1, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["192.0.2.1, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["192.0.2.1", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
    ],
)
def test_only_trusted_proxies_say_whom_they_forward_for(peer: str, forwarded_for: list[str], client: str) -> None:
    assert find_client_address(peer, forwarded_for, PROXIES) == client


@given(st.lists(st.text(max_size=40), max_size=5))
def test_any_forwarded_for_is_read(forwarded_for: list[str]) -> None:
    find_client_address("10.0.0.1", forwarded_for, PROXIES)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("testclient", "unknown"),
    ],
)
def test_a_caller_over_ipv6_is_a_whole_network(address: str, name: str) -> None:
    assert name_address(address) == name

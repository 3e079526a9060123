"""When API keys were last used: right to a minute, from usage records that come twice, late and in any order."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.exc import DBAPIError

from ias.contracts.events import USAGE_TOPIC, UsageRecord
from ias.contracts.usage_messages import check_message
from ias.identity.core.last_used import LastUsed
from ias.kit import bus
from ias.kit.database import Database
from tests.billing.usage import broken, make_record, message
from tests.identity.database import connected
from tests.identity.platform import Caller, consuming, eventually, settings_for

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture(params=["redis", "rabbitmq"])
def bus_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
async def key(admin: Caller) -> dict[str, Any]:
    return await issue_key(admin, "acme")


@pytest.fixture
async def last_used(database_url: str, redis_url: str) -> AsyncIterator[LastUsed]:
    database = Database(database_url, settings_for(database_url, redis_url), application_name="test")
    yield LastUsed(database)
    await database.close()


async def issue_key(admin: Caller, org_name: str) -> dict[str, Any]:
    org = await admin.ok("POST", "/identity/v1/orgs", {"name": org_name})
    [project] = (await admin.ok("GET", f"/identity/v1/orgs/{org['id']}/projects"))["data"]
    issued: dict[str, Any] = await admin.ok("POST", f"/identity/v1/projects/{project['id']}/api-keys", {"name": "used"})
    return issued


def use(key: dict[str, Any], moment: datetime = NOON, **changed: Any) -> UsageRecord:
    """What a gateway says of a request with a key."""
    told = {"org_id": key["org_id"], "api_key_id": key["id"], "occurred_at": moment.isoformat()}
    return make_record(**(told | changed))


async def note(last_used: LastUsed, *records: UsageRecord) -> int:
    """As the consumer does; how many keys were written."""
    return await last_used.note(check_message(message(*records)).records)


async def read_last_used(admin: Caller, key: dict[str, Any]) -> datetime | None:
    answer = await admin.ok("GET", f"/identity/v1/api-keys/{key['id']}")
    return datetime.fromisoformat(answer["last_used_at"]) if answer["last_used_at"] else None


async def test_a_used_key_shows_when_and_a_message_with_poison_is_set_aside_after_its_good_records(
    admin: Caller, key: dict[str, Any], database_url: str, redis_url: str, bus_url: str
) -> None:
    assert await read_last_used(admin, key) is None
    bodies = [
        message(broken(use(key), org_id="acme"), use(key)),
        b"junk",
        message(use(key, NOON + timedelta(hours=1))),
    ]
    publisher = bus.open_publisher(bus_url)
    for body in bodies:
        await publisher.publish(USAGE_TOPIC, body, message_id=str(uuid4()))
    await publisher.close()

    async with consuming(database_url, redis_url, bus_url) as consumer:
        told = consumer.registry.get_sample_value

        async def noted() -> bool:
            return told("ias_identity_key_uses_noted_total") == 2

        await eventually(noted, seconds=30)
        assert told("ias_identity_refused_usage_records_total") == 2
    assert await read_last_used(admin, key) == NOON + timedelta(hours=1)

    async with bus.open_dead_letters(bus_url, USAGE_TOPIC, "identity") as letters:
        reasons = [letter.reason async for letter in letters.read(10)]
    assert [reason.partition(":")[0] for reason in reasons] == [
        "1 of 2 records cannot be booked",
        "the message cannot be read",
    ]


async def test_redeliveries_and_late_records_never_set_it_back(
    admin: Caller, key: dict[str, Any], last_used: LastUsed
) -> None:
    late = use(key, NOON - timedelta(days=1))
    records = [use(key, NOON), late, use(key, NOON - timedelta(hours=5))]
    assert await note(last_used, *records) == 1
    for again in (records, [late], list(reversed(records))):
        assert await note(last_used, *again) == 0
    assert await read_last_used(admin, key) == NOON


async def test_a_thousand_records_of_one_key_are_one_write_and_the_next_comes_a_minute_later(
    admin: Caller, key: dict[str, Any], last_used: LastUsed
) -> None:
    records = [use(key, NOON + timedelta(milliseconds=number)) for number in range(1000)]
    assert await note(last_used, *records) == 1
    assert await read_last_used(admin, key) == NOON + timedelta(milliseconds=999)
    assert await note(last_used, use(key, NOON + timedelta(seconds=60))) == 0
    assert await note(last_used, use(key, NOON + timedelta(seconds=61))) == 1
    assert await read_last_used(admin, key) == NOON + timedelta(seconds=61)


async def test_a_moment_in_the_future_counts_as_now(admin: Caller, key: dict[str, Any], last_used: LastUsed) -> None:
    before = datetime.now(UTC)
    assert await note(last_used, use(key, before + timedelta(days=400))) == 1
    shown = await read_last_used(admin, key)
    assert shown is not None
    assert before <= shown <= datetime.now(UTC)


async def test_keys_of_every_org_are_reached_and_unknown_keys_and_foreign_orgs_are_passed_over(
    admin: Caller, key: dict[str, Any], last_used: LastUsed
) -> None:
    other = await issue_key(admin, "other")
    untouched = await issue_key(admin, "untouched")
    foreign = use(untouched, org_id=key["org_id"])
    assert await note(last_used, use(key), use(other), foreign, use(key, api_key_id=str(uuid4()))) == 2
    assert [await read_last_used(admin, one) for one in (key, other, untouched)] == [NOON, NOON, None]


async def test_a_use_changes_no_version_so_gateways_are_told_nothing(
    admin: Caller, key: dict[str, Any], last_used: LastUsed
) -> None:
    before = await admin.ok("GET", f"/identity/v1/api-keys/{key['id']}")
    await note(last_used, use(key))
    after = await admin.ok("GET", f"/identity/v1/api-keys/{key['id']}")
    assert after == before | {"last_used_at": after["last_used_at"]}


async def test_it_gives_way_to_a_change_that_holds_the_key_and_succeeds_afterwards(
    admin: Caller, key: dict[str, Any], last_used: LastUsed, database_url: str
) -> None:
    async with connected(database_url) as connection:
        async with connection.transaction():
            await connection.execute("SET LOCAL ias.orgs = '*'")
            await connection.execute("SELECT FROM api_keys WHERE id = $1 FOR UPDATE", key["id"])
            with pytest.raises(DBAPIError, match="lock timeout"):
                await note(last_used, use(key))
        assert await note(last_used, use(key)) == 1
    assert await read_last_used(admin, key) == NOON

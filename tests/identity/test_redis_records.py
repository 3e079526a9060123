"""Redis is told of every change, whatever it or this process goes through in between."""

from collections.abc import Callable

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from ias.contracts import redis_keys
from ias.contracts.api_keys import KeyRecord, TenantRecord, digest_key
from ias.identity.core.redis_records import COMPLETE_MARKER
from tests.identity.database import execute, fetch
from tests.identity.platform import Caller, eventually, running, settings_for
from tests.servers.redis_process import RedisProcess


async def issue_key(admin: Caller) -> dict[str, str]:
    org = await admin.ok("POST", "/identity/v1/orgs", {"name": "acme"})
    [project] = (await admin.ok("GET", f"/identity/v1/orgs/{org['id']}/projects"))["data"]
    key: dict[str, str] = await admin.ok("POST", f"/identity/v1/projects/{project['id']}/api-keys", {"name": "key"})
    return key


async def find_record(redis: Redis, key: dict[str, str]) -> KeyRecord | None:
    try:
        raw = await redis.get(redis_keys.api_key(digest_key(key["key"])))
    except RedisConnectionError:
        return None  # it is starting again
    return msgspec.json.decode(raw, type=KeyRecord) if raw else None


async def test_changes_made_while_redis_is_away_are_told_when_it_is_back(
    database_url: str, private_redis: Callable[..., RedisProcess]
) -> None:
    server = private_redis(durable=True)
    async with running(settings_for(database_url, server.url)) as identity, Redis.from_url(server.url) as redis:
        admin = await identity.sign_in()
        key = await issue_key(admin)
        server.kill()

        revoked = await admin.delete(f"/identity/v1/api-keys/{key['id']}")
        renamed = await admin.patch(f"/identity/v1/orgs/{key['org_id']}", json={"status": "suspended"})

        assert (revoked.status_code, revoked.headers["x-ias-in-force"]) == (204, "false")
        assert (renamed.status_code, renamed.headers["x-ias-in-force"]) == (200, "false")
        ready = await admin.get("/ready")
        assert (ready.status_code, list(ready.json()["away"])) == (503, ["redis"])
        server.start()

        async def told() -> bool:
            record = await find_record(redis, key)
            return record is not None and record.status == "revoked"

        assert await eventually(told)
        assert await eventually(lambda: is_pushed(database_url))
        org = msgspec.json.decode(await redis.get(redis_keys.org(key["org_id"])) or b"", type=TenantRecord)
        assert org.status == "suspended"


async def is_pushed(database_url: str) -> bool:
    pending = (
        "SELECT 1 FROM api_keys WHERE pushed_version < version UNION SELECT 1 FROM orgs WHERE pushed_version < version"
    )
    return not await fetch(database_url, pending)


async def test_a_redis_that_hangs_does_not_fail_a_change(
    database_url: str, private_redis: Callable[..., RedisProcess]
) -> None:
    server = private_redis()
    settings = settings_for(database_url, server.url, redis_timeout_s=0.2)
    async with running(settings) as identity, Redis.from_url(server.url) as redis:
        admin = await identity.sign_in()
        key = await issue_key(admin)
        server.pause()
        try:
            revoked = await admin.delete(f"/identity/v1/api-keys/{key['id']}")
            assert (revoked.status_code, revoked.headers["x-ias-in-force"]) == (204, "false")
        finally:
            server.resume()

        async def told() -> bool:
            record = await find_record(redis, key)
            return record is not None and record.status == "revoked"

        assert await eventually(told)


async def test_a_redis_that_was_emptied_is_told_everything_again(
    admin: Caller, redis: Redis, database_url: str
) -> None:
    key = await issue_key(admin)
    await eventually(lambda: redis.exists(COMPLETE_MARKER))
    await redis.flushall()

    record = await eventually(lambda: find_record(redis, key))

    assert record.status == "active"
    assert await eventually(lambda: redis.get(redis_keys.org(key["org_id"])))
    assert await eventually(lambda: redis.get(redis_keys.project(key["project_id"])))
    assert await eventually(lambda: redis.exists(COMPLETE_MARKER))


async def test_a_redis_that_came_back_with_an_older_copy_learns_again_that_a_key_was_revoked(
    database_url: str, private_redis: Callable[..., RedisProcess]
) -> None:
    server = private_redis(durable=True)
    async with running(settings_for(database_url, server.url)) as identity, Redis.from_url(server.url) as redis:
        admin = await identity.sign_in()
        key = await issue_key(admin)
        name = redis_keys.api_key(digest_key(key["key"]))
        older = await redis.get(name)
        await admin.ok("DELETE", f"/identity/v1/api-keys/{key['id']}")
        await eventually(lambda: is_pushed(database_url))
        # What a restore from a snapshot does: the older record, and the marker that says all is told.
        await redis.set(name, older or b"")
        server.kill()
        server.start()

        async def revoked() -> bool:
            record = await find_record(redis, key)
            return record is not None and record.status == "revoked"

        assert await eventually(revoked)


async def test_what_a_process_committed_and_did_not_live_to_push_is_pushed(
    admin: Caller, redis: Redis, database_url: str
) -> None:
    key = await issue_key(admin)
    await execute(database_url, "UPDATE api_keys SET status = 'revoked', version = version + 1")

    async def revoked() -> bool:
        record = await find_record(redis, key)
        return record is not None and (record.status, record.version) == ("revoked", 2)

    assert await eventually(revoked)
    assert await eventually(lambda: is_pushed(database_url))


async def test_the_keys_of_a_suspended_user_are_suspended(admin: Caller, redis: Redis, database_url: str) -> None:
    key = await issue_key(admin)
    await execute(database_url, "UPDATE users SET status = 'suspended'")
    await execute(database_url, "UPDATE api_keys SET version = version + 1")

    async def suspended() -> bool:
        record = await find_record(redis, key)
        return record is not None and record.status == "suspended"

    assert await eventually(suspended)

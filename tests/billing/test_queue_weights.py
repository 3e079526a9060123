"""What an org's turns weigh is its contract: the platform says it, gateways hear it."""

import asyncio
import json

import msgspec
import structlog
from click.testing import CliRunner, Result
from redis.asyncio import Redis

from ias.cli.spending_settings import spending_settings
from ias.contracts import redis_keys
from ias.contracts.permissions import Role
from ias.contracts.spending import SpendingPolicy
from tests.billing.conftest import RunningBilling, client_of, served
from tests.billing.usage import eventually
from tests.kit.token_issuer import TokenIssuer


async def test_a_platform_admin_sets_the_weight_and_gateways_hear_of_it(
    run_billing: RunningBilling, issuer: TokenIssuer, redis: Redis, org_id: str
) -> None:
    async def published() -> int | None:
        document = await redis.get(redis_keys.spending_policy(org_id))
        return msgspec.json.decode(document, type=SpendingPolicy).queue_weight if document else None

    async def is_usual() -> bool:
        return await published() == 100

    path = f"/billing/v1/orgs/{org_id}/spending-settings"
    async with run_billing() as app, client_of(app, issuer.platform_admin()) as billing:
        assert (await billing.get(path)).json()["queue_weight"] == 100
        changed = await billing.patch(path, json={"queue_weight": 300})
        assert (changed.status_code, changed.json()["queue_weight"]) == (200, 300)
        assert await eventually(published) == 300
        assert (await billing.patch(path, json={"time_zone": "Europe/Berlin"})).json()["queue_weight"] == 300
        for wrong in (0, 10_001, 1.5, "much"):
            assert (await billing.patch(path, json={"queue_weight": wrong})).status_code == 422, wrong
        async with client_of(app, issuer.member(org_id, Role.OWNER)) as owner:
            assert (await owner.patch(path, json={"queue_weight": 500})).status_code == 403
        assert (await billing.patch(path, json={"queue_weight": None})).json()["queue_weight"] == 100
        await eventually(is_usual)


async def test_the_command_shows_tries_and_changes(
    run_billing: RunningBilling, issuer: TokenIssuer, org_id: str
) -> None:
    token = issuer.platform_admin()["Authorization"].removeprefix("Bearer ")
    with structlog.testing.capture_logs():  # billing's own log would be among what the command prints
        async with run_billing() as app, served(app) as url:

            async def run(*arguments: str) -> Result:
                given = ("--org", org_id, "--url", url, *arguments)
                return await asyncio.to_thread(CliRunner().invoke, spending_settings, given, env={"IAS_TOKEN": token})

            tried = await run("--queue-weight", "250", "--dry-run")
            assert "queue_weight: 100 → 250" in tried.output, tried.output
            assert json.loads((await run()).output)["queue_weight"] == 100
            assert "queue_weight: 100 → 250" in (await run("--queue-weight", "250")).output
            assert json.loads((await run()).output)["queue_weight"] == 250
            assert "queue_weight: 250 → 100" in (await run("--clear", "queue_weight")).output
            refused = await run("--queue-weight", "20000")
            assert refused.exit_code == 1
            assert "/queue_weight" in refused.output

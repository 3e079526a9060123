"""Alerts: each threshold of each window is told once, signed, to whom the org named, and the log says what became of it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from ias.billing.core.alert_channels import CHANNELS_PER_ORG_MAX
from ias.billing.core.booking import Booking
from ias.contracts.permissions import Role
from ias.contracts.usage_messages import check_message
from ias.kit.database import Database
from tests.billing.conftest import RunningBilling, client_of, create_budget
from tests.billing.usage import eventually, make_record, message
from tests.billing.webhook_receiver import DRIP, SILENCE, listening
from tests.identity.mailbox import open_mailbox
from tests.kit.token_issuer import TokenIssuer

CHANNELS = "/billing/v1/alert-channels"
FAST: dict[str, Any] = {"billing_alert_interval_s": 0.05, "billing_webhook_allow_loopback": True}


@pytest.fixture
async def telling(run_billing: RunningBilling, issuer: TokenIssuer) -> AsyncIterator[httpx.AsyncClient]:
    """A platform admin's client of two replicas that may post to this machine."""
    async with run_billing(**FAST) as app, run_billing(**FAST), client_of(app, issuer.platform_admin()) as client:
        yield client


async def spend(database: Database, org_id: str, *, times: int = 1) -> None:
    """2,000,000 nano-USD each."""
    records = [make_record(org_id) for _ in range(times)]
    await Booking(database).book(check_message(message(*records)).records)


async def add_channel(client: httpx.AsyncClient, org_id: str, kind: str, target: str) -> dict[str, Any]:
    answer = await client.post(CHANNELS, json={"org_id": org_id, "kind": kind, "target": target})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def read(client: httpx.AsyncClient, org_id: str, noun: str) -> list[dict[str, Any]]:
    return (await client.get(f"/billing/v1/{noun}", params={"org_id": org_id})).json()["data"]


def all_told(client: httpx.AsyncClient, org_id: str, count: int) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        deliveries = await read(client, org_id, "alert-deliveries")
        return [delivery["status"] for delivery in deliveries] == ["delivered"] * count

    return holds


async def test_each_threshold_is_told_once_signed_and_logged(
    telling: httpx.AsyncClient, database: Database, org_id: str
) -> None:
    async with listening() as receiver:
        channel = await add_channel(telling, org_id, "webhook", receiver.url)
        budget = await create_budget(telling, org_id, limit_usd="0.01", alert_percents=[50, 80, 100, 50])
        assert budget["alert_percents"] == [50, 80, 100]
        await spend(database, org_id, times=2)
        assert await read(telling, org_id, "alerts") == []
        await spend(database, org_id)
        await eventually(all_told(telling, org_id, 1))
        sent = receiver.verify(0, channel["secret"])
        assert sent["type"] == "budget.threshold_reached"
        told = sent["data"]
        assert (told["percent"], told["limit_usd"], told["spent_usd"]) == (50, "0.01", "0.006")
        assert told["scope"] == {"kind": "org", "id": org_id}
        await spend(database, org_id, times=2)
        await eventually(all_told(telling, org_id, 3))
        assert sorted(alert["percent"] for alert in await read(telling, org_id, "alerts")) == [50, 80, 100]
        assert sorted(receiver.verify(n, channel["secret"])["data"]["percent"] for n in range(3)) == [50, 80, 100]
        assert len({headers["webhook-id"] for headers, _ in receiver.received}) == 3


@asynccontextmanager
async def telling_on_demand(
    run_billing: RunningBilling, issuer: TokenIssuer, database: Database
) -> AsyncIterator[tuple[httpx.AsyncClient, Callable[[], Awaitable[int]]]]:
    """A client, and what makes every delivery that waits, however long it was to wait."""
    slow = FAST | {"billing_alert_interval_s": 60.0}
    async with run_billing(**slow) as app, client_of(app, issuer.platform_admin()) as client:

        async def tell() -> int:
            async with database.transaction() as connection:
                await connection.execute(text("UPDATE alert_deliveries SET next_try_at = now() - interval '1 s'"))
            tried: int = await app.state.alert_deliveries.make_due()
            return tried

        yield client, tell


async def test_a_webhook_that_fails_is_tried_again_with_the_same_id_and_one_that_is_gone_is_not(
    run_billing: RunningBilling, issuer: TokenIssuer, database: Database, org_id: str
) -> None:
    async with (
        listening(500, 301, 204) as receiver,
        listening(410) as gone,
        telling_on_demand(run_billing, issuer, database) as (client, tell),
    ):
        for each in (receiver, gone):
            await add_channel(client, org_id, "webhook", each.url)
        await create_budget(client, org_id, limit_usd="0.001", alert_percents=[100])
        await spend(database, org_id)
        assert await eventually(tell) == 2
        assert [await tell() for _ in range(3)] == [1, 1, 0]
        listed = {each["status"]: each for each in await read(client, org_id, "alert-deliveries")}
        assert (listed["delivered"]["tries"], listed["delivered"]["last_answer"]) == (3, "HTTP 204")
        assert (listed["given_up"]["tries"], listed["given_up"]["last_answer"]) == (1, "HTTP 410")
        assert len({headers["webhook-id"] for headers, _ in receiver.received}) == 1
        assert (len(receiver.received), len(gone.received)) == (3, 1)


async def test_an_answer_that_drips_ends_at_the_deadline(
    run_billing: RunningBilling, issuer: TokenIssuer, database: Database, org_id: str
) -> None:
    async with (
        listening(DRIP) as receiver,
        run_billing(**FAST, billing_webhook_timeout_s=0.3) as app,
        client_of(app, issuer.platform_admin()) as client,
    ):
        await add_channel(client, org_id, "webhook", receiver.url)
        await create_budget(client, org_id, limit_usd="0.001", alert_percents=[100])
        await spend(database, org_id)

        async def was_left() -> bool:
            listed = await read(client, org_id, "alert-deliveries")
            return [each["last_answer"] for each in listed] == ["TimeoutError"]

        await eventually(was_left)


async def test_an_org_whose_webhooks_never_answer_does_not_keep_another_waiting(
    run_billing: RunningBilling, issuer: TokenIssuer, database: Database, org_id: str
) -> None:
    other = str(uuid4())
    async with (
        run_billing(**FAST, billing_webhook_timeout_s=60) as app,
        client_of(app, issuer.platform_admin()) as client,
        listening(SILENCE) as silent,
        listening() as receiver,
    ):
        for _ in range(3):
            await add_channel(client, other, "webhook", silent.url)
        await add_channel(client, org_id, "webhook", receiver.url)
        for each in (other, org_id):
            await create_budget(client, each, limit_usd="0.001", alert_percents=[100])
        records = [make_record(each) for each in (other, org_id)]
        await Booking(database).book(check_message(message(*records)).records)
        await eventually(all_told(client, org_id, 1))
        assert not await all_told(client, other, 3)()


async def test_tries_are_bounded(
    run_billing: RunningBilling, issuer: TokenIssuer, database: Database, org_id: str
) -> None:
    async with listening(500) as receiver, telling_on_demand(run_billing, issuer, database) as (client, tell):
        await add_channel(client, org_id, "webhook", receiver.url)
        await create_budget(client, org_id, limit_usd="0.001", alert_percents=[100])
        await spend(database, org_id)
        assert await eventually(tell) == 1
        assert [await tell() for _ in range(7)] == [1] * 6 + [0]
        [delivery] = await read(client, org_id, "alert-deliveries")
        assert (delivery["status"], delivery["next_try_at"], len(receiver.received)) == ("given_up", None, 7)


async def test_a_rotated_secret_signs_beside_the_old_one(
    telling: httpx.AsyncClient, database: Database, org_id: str
) -> None:
    async with listening() as receiver:
        channel = await add_channel(telling, org_id, "webhook", receiver.url)
        rotated = (await telling.post(f"{CHANNELS}/{channel['id']}/rotate")).json()
        assert rotated["secret"] != channel["secret"]
        await create_budget(telling, org_id, limit_usd="0.001", alert_percents=[100])
        await spend(database, org_id)
        await eventually(all_told(telling, org_id, 1))
        for secret in (channel["secret"], rotated["secret"]):
            receiver.verify(0, secret)
        shown = await telling.get(f"{CHANNELS}/{channel['id']}")
        assert "secret" not in shown.json()
        assert (await telling.delete(f"{CHANNELS}/{channel['id']}")).status_code == 204
        assert (await telling.get(f"{CHANNELS}/{channel['id']}")).status_code == 404


async def test_an_e_mail_says_what_was_reached(
    run_billing: RunningBilling, issuer: TokenIssuer, database: Database, org_id: str
) -> None:
    async with open_mailbox() as mailbox:
        async with (
            run_billing(**FAST, smtp_url=mailbox.url) as app,
            client_of(app, issuer.platform_admin()) as client,
        ):
            await add_channel(client, org_id, "email", "finance@example.com")
            await create_budget(client, org_id, limit_usd="0.004", alert_percents=[50])
            await spend(database, org_id)
            await eventually(all_told(client, org_id, 1))
        [mail] = mailbox.received
        assert mail["To"] == "finance@example.com"
        assert mail["Subject"].startswith("50 % of a budget is spent")


async def test_where_the_platform_does_not_call_no_channel_leads(
    run_billing: RunningBilling, issuer: TokenIssuer, org_id: str
) -> None:
    async with run_billing() as app, client_of(app, issuer.platform_admin()) as client:
        for target in (
            "http://127.0.0.1:9/x",
            "http://169.254.169.254/latest",
            "http://10.0.0.1/",
            "http://localhost/",
            "ftp://example.com",
            "https://u:p@example.com/",
        ):
            body = {"org_id": org_id, "kind": "webhook", "target": target}
            answer = await client.post(CHANNELS, json=body)
            assert answer.status_code == 422, target
            assert [error["pointer"] for error in answer.json()["errors"]] == ["/target"]
        for target in ("nobody", "a@", "@b", "a@b@c", "a\r\nBcc:x@y"):
            body = {"org_id": org_id, "kind": "email", "target": target}
            assert (await client.post(CHANNELS, json=body)).status_code == 422, target


async def test_a_name_that_leads_inside_after_it_was_checked_is_not_called(
    run_billing: RunningBilling, issuer: TokenIssuer, database: Database, org_id: str
) -> None:
    """The address is judged again when it is called: a name may mean another machine by then."""
    async with listening() as receiver, run_billing(billing_alert_interval_s=0.05) as app:
        async with client_of(app, issuer.platform_admin()) as client:
            await add_channel(client, org_id, "webhook", "https://example.invalid/x")
            async with database.transaction() as connection:
                moved = "UPDATE alert_channels SET target = :url"
                await connection.execute(text(moved), {"url": receiver.url})
            await create_budget(client, org_id, limit_usd="0.001", alert_percents=[100])
            await spend(database, org_id)

            async def was_refused() -> bool:
                listed = await read(client, org_id, "alert-deliveries")
                return [each["last_answer"] for each in listed] == ["EgressRefusedError"]

            await eventually(was_refused)
        assert receiver.received == []


async def test_no_more_channels_than_an_org_may_have_come_of_asking_at_once(
    billing: httpx.AsyncClient, org_id: str
) -> None:
    bodies = [
        {"org_id": org_id, "kind": "email", "target": f"a{n}@example.com"} for n in range(CHANNELS_PER_ORG_MAX + 5)
    ]
    answers = await asyncio.gather(*(billing.post(CHANNELS, json=body) for body in bodies))
    codes = Counter(answer.status_code for answer in answers)
    assert codes == {201: CHANNELS_PER_ORG_MAX, 409: 5}


async def test_channels_and_alerts_are_their_orgs_own(
    run_billing: RunningBilling, issuer: TokenIssuer, org_id: str
) -> None:
    async with run_billing(**FAST) as app:
        async with client_of(app, issuer.member(org_id, Role.OWNER)) as owner:
            channel = await add_channel(owner, org_id, "email", "a@example.com")
        async with client_of(app, issuer.member(str(uuid4()), Role.OWNER)) as stranger:
            for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/rotate")):
                answer = await stranger.request(method, f"{CHANNELS}/{channel['id']}{path}")
                assert answer.status_code == 404
            for noun in ("alerts", "alert-deliveries", "alert-channels"):
                answer = await stranger.get(f"/billing/v1/{noun}", params={"org_id": org_id})
                assert answer.status_code == 404

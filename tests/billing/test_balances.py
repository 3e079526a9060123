"""What an org's ledger adds up to, by whoever spent it."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from ias.billing.core.booking import Booking
from ias.contracts.permissions import Role
from ias.contracts.usage_messages import check_message
from ias.kit.database import Database
from tests.billing.usage import id_at, make_record, message
from tests.kit.token_issuer import TokenIssuer

HOUR = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
KEYS = [str(uuid4()) for _ in range(3)]


@pytest.fixture
async def spent(billing: httpx.AsyncClient, database: Database, org_id: str) -> None:
    """1, 2 and 4 USD by three keys; the last two hours ago; and a credit of 3 USD."""
    records = [
        make_record(
            org_id,
            api_key_id=key,
            model=f"model-{n % 2}",
            cost_nano_usd=2**n * 10**9,
            id=id_at(HOUR - timedelta(hours=2) if n == 2 else HOUR),
        )
        for n, key in enumerate(KEYS)
    ]
    await Booking(database).book(check_message(message(*records, make_record(str(uuid4())))).records)
    credit = {"org_id": org_id, "amount_usd": "3", "reason": "an outage"}
    assert (await billing.post("/billing/v1/credits", json=credit)).status_code == 201


async def ask(billing: httpx.AsyncClient, org_id: str, **parameters: Any) -> Any:
    answer = await billing.get("/billing/v1/balances", params={"org_id": org_id, **parameters})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.usefixtures("spent")
async def test_an_orgs_balance_is_what_its_ledger_adds_up_to(billing: httpx.AsyncClient, org_id: str) -> None:
    found = await ask(billing, org_id)
    assert found["total"] == {"entries": 4, "cost_usd": "4.00"}
    assert found["balances"] == [{"id": org_id, "entries": 4, "cost_usd": "4.00"}]
    assert found["others"] == {"entries": 0, "cost_usd": "0.00"}


@pytest.mark.usefixtures("spent")
async def test_balances_are_by_scope_the_dearest_first_and_what_is_not_listed_is_summed(
    billing: httpx.AsyncClient, org_id: str
) -> None:
    by_key = await ask(billing, org_id, by="api_key")
    assert [(one["id"], one["cost_usd"]) for one in by_key["balances"]] == [
        (KEYS[2], "4.00"),
        (KEYS[1], "2.00"),
        (KEYS[0], "1.00"),
        (None, "-3.00"),
    ]
    two = await ask(billing, org_id, by="api_key", limit=2)
    assert two["balances"] == by_key["balances"][:2]
    assert (two["total"], two["others"]) == (by_key["total"], {"entries": 2, "cost_usd": "-2.00"})
    by_model = await ask(billing, org_id, by="model")
    assert {one["id"]: one["cost_usd"] for one in by_model["balances"]} == {
        "model-0": "5.00",
        "model-1": "2.00",
        None: "-3.00",
    }


@pytest.mark.usefixtures("spent")
async def test_a_period_is_of_full_hours(billing: httpx.AsyncClient, org_id: str) -> None:
    earlier = await ask(billing, org_id, end=(HOUR - timedelta(minutes=30)).isoformat())
    assert (earlier["total"]["cost_usd"], earlier["end"]) == (
        "4.00",
        (HOUR - timedelta(hours=1)).isoformat().replace("+00:00", "Z"),
    )
    since = await ask(billing, org_id, start=(HOUR - timedelta(minutes=30)).isoformat())
    assert since["total"]["cost_usd"] == "0.00"


@pytest.mark.usefixtures("spent")
async def test_another_orgs_balances_are_not_told(billing: httpx.AsyncClient, org_id: str, issuer: TokenIssuer) -> None:
    elsewhere = issuer.member(str(uuid4()), Role.OWNER)
    answer = await billing.get("/billing/v1/balances", params={"org_id": org_id}, headers=elsewhere)
    assert answer.status_code == 404
    assert (await ask(billing, str(uuid4())))["total"] == {"entries": 0, "cost_usd": "0.00"}

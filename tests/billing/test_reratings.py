"""Re-rating: a period's requests at the prices known by now, once, and never against what somebody decided."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx

from ias.kit.database import Database
from tests.billing.conftest import create_budget, create_price
from tests.billing.test_adjustments import book, correct, spent
from tests.billing.usage import eventually, make_record, read_books


def period(org_id: str, **more: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    start, end = now - timedelta(hours=1), now + timedelta(hours=1)
    return {"org_id": org_id, "start": start.isoformat(), "end": end.isoformat(), "reason": "Priced late.", **more}


def long_ago() -> str:
    return (datetime.now(UTC) - timedelta(days=2)).isoformat()


async def test_requests_that_had_no_price_get_the_one_that_was_set_late_once(
    billing: httpx.AsyncClient, database: Database, org_id: str
) -> None:
    budget = await create_budget(billing, org_id)
    records = [make_record(org_id, cost_nano_usd=0) for _ in range(3)]
    await book(database, *records, make_record(str(uuid4()), cost_nano_usd=0), make_record(org_id, model="other"))
    price = await create_price(billing, effective_at=long_ago())
    tried = await billing.post("/billing/v1/reratings", json=period(org_id), params={"dry_run": "true"})
    told = tried.json()["changes"][0]["after"]
    assert told["models"]["tiny"] == {
        "changed": 3,
        "was_usd": "0.00",
        "is_usd": "0.006",
        "difference_usd": "0.006",
    }
    assert (await read_books(database))["ledger"] == (5, 2_000_000)
    answer = (await billing.post("/billing/v1/reratings", json=period(org_id))).json()
    assert (answer["requests"], answer["unpriced"], answer["models"][0]["changed"]) == (4, 1, 3)
    assert await read_books(database) == {"ledger": (8, 8_000_000), "hourly": (8, 8_000_000)}
    params = {"org_id": org_id}
    explained = (await billing.get(f"/billing/v1/requests/{records[0].request_id}", params=params)).json()
    assert [(entry["rating"], entry["price_id"]) for entry in explained["entries"]] == [
        ("unpriced", None),
        ("rerated", price["id"]),
    ]

    async def counted() -> bool:
        return await spent(billing, budget) == "0.008"

    await eventually(counted)
    again = (await billing.post("/billing/v1/reratings", json=period(org_id))).json()
    assert again["models"] == []
    assert (await read_books(database))["ledger"] == (8, 8_000_000)


async def test_a_period_that_ends_before_it_begins_is_refused(billing: httpx.AsyncClient, org_id: str) -> None:
    asked = period(org_id)
    answer = await billing.post("/billing/v1/reratings", json=asked | {"start": asked["end"], "end": asked["start"]})
    assert (answer.status_code, [error["pointer"] for error in answer.json()["errors"]]) == (422, ["/end"])


async def test_an_orgs_own_price_goes_first_and_what_somebody_decided_stays(
    billing: httpx.AsyncClient, database: Database, org_id: str
) -> None:
    price = await create_price(billing, effective_at=long_ago())
    decided, plain = make_record(org_id, price), make_record(org_id, price)
    await book(database, decided, plain)
    assert (await correct(billing, org_id, decided.request_id, "0.0005")).status_code == 201
    await create_price(billing, org_id=org_id, effective_at=long_ago(), request_usd="0.01", output_usd_per_million="0")
    answer = (await billing.post("/billing/v1/reratings", json=period(org_id, model="tiny"))).json()
    assert (answer["decided"], answer["models"]) == (
        1,
        [{"model": "tiny", "changed": 1, "was_usd": "0.002", "is_usd": "0.011", "difference_usd": "0.009"}],
    )


async def test_a_correction_after_a_rerating_says_the_whole_cost(
    billing: httpx.AsyncClient, database: Database, org_id: str
) -> None:
    record = make_record(org_id, cost_nano_usd=0)
    await book(database, record)
    await create_price(billing, effective_at=long_ago())
    await billing.post("/billing/v1/reratings", json=period(org_id))
    assert (await correct(billing, org_id, record.request_id, "0.001")).json()["cost_usd"] == "-0.001"
    assert (await read_books(database))["ledger"] == (3, 1_000_000)

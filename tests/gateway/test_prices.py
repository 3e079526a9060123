"""What a request is charged: the org's own price goes before everybody's, and a request may have a price of its own."""

from ias.contracts.spending import Price
from tests.gateway.platform import INPUT_PRICE, OUTPUT_PRICE, RunningGateway, budget, until
from tests.gateway.raw_client import ask, chat
from tests.gateway.scripted_upstream import Received, ScriptedUpstream, Session, chunk, usage_chunk

COST = (10 * INPUT_PRICE + 5 * OUTPUT_PRICE) // 1_000_000


def own_price(model: str = "m", **more: int) -> dict[str, tuple[Price, ...]]:
    price = Price(
        **{
            "id": "own",
            "version": 7,
            "model": model,
            "effective_at": 0,
            "input_nano_usd_per_million": 0,
            "cached_input_nano_usd_per_million": 0,
            "output_nano_usd_per_million": OUTPUT_PRICE,
            "request_nano_usd": 1000,
            **more,
        }
    )
    return {model: (price,)}


async def test_an_orgs_own_price_is_charged_and_named_in_the_record(gateway: RunningGateway) -> None:
    await gateway.pushed.ceilings(budgets=(budget(10**12),), prices=own_price())
    assert (await ask(gateway.port, chat(max_tokens=5), key=gateway.pushed.key)).status == 200
    [record] = await gateway.records(1)
    cost = 1000 + 5 * OUTPUT_PRICE // 1_000_000
    assert (record["price_id"], record["price_version"], record["cost_nano_usd"]) == ("own", 7, cost)
    await gateway.until_quiet()
    assert await gateway.pushed.counter("b1") == (cost, 0)


async def test_everybodys_price_is_charged_where_the_orgs_own_has_ended_or_is_for_another_model(
    gateway: RunningGateway,
) -> None:
    for served, prices in enumerate((own_price(effective_until=1), own_price("other")), 1):
        await gateway.pushed.ceilings(prices=prices)
        assert (await ask(gateway.port, chat(max_tokens=5), key=gateway.pushed.key)).status == 200
        assert (await gateway.records(served))[-1]["cost_nano_usd"] == COST


async def test_a_budget_that_bears_the_tokens_but_not_the_request_lets_none_in(gateway: RunningGateway) -> None:
    await gateway.pushed.ceilings(budgets=(budget(5000),), prices=own_price(request_nano_usd=5000))
    answer = await ask(gateway.port, chat(max_tokens=5), key=gateway.pushed.key)
    assert (answer.status, answer.error["code"]) == (429, "insufficient_quota")


async def test_an_org_may_refuse_models_without_a_price_or_let_them_pass(gateway: RunningGateway) -> None:
    await gateway.pushed.prices("other")
    for unpriced, status in (("refuse", 503), ("allow", 200)):
        await gateway.pushed.ceilings(unpriced=unpriced)
        assert (await ask(gateway.port, chat(max_tokens=5), key=gateway.pushed.key)).status == status, unpriced


async def test_a_price_that_changes_in_the_middle_of_a_stream_is_for_the_next_request(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    async def script(received: Received, session: Session) -> None:
        await session.begin_stream()
        await session.event(chunk("x"))
        await gateway.pushed.prices("m", id="dearer", output_nano_usd_per_million=1000 * OUTPUT_PRICE)
        await until(lambda: gateway.worker.gateway.snapshots.prices.prices["m"][0].id == "dearer")
        await session.event(chunk(finish="stop"))
        await session.event(usage_chunk())
        await session.end_stream()

    upstream.script = script
    await gateway.pushed.budgets(budget(10**12))
    for served, (price_id, output_price) in enumerate((("price-m", OUTPUT_PRICE), ("dearer", 1000 * OUTPUT_PRICE)), 1):
        assert (await ask(gateway.port, chat(stream=True, max_tokens=5), key=gateway.pushed.key)).status == 200
        record = (await gateway.records(served))[-1]
        cost = (10 * INPUT_PRICE + 5 * output_price) // 1_000_000
        assert (record["price_id"], record["cost_nano_usd"]) == (price_id, cost)

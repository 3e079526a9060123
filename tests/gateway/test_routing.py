"""Routing through the running gateway: who is asked, who waits, who is woken, and what is said of it."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx

from ias.contracts import redis_keys
from ias.contracts.api_keys import generate_key
from ias.contracts.backend_states import BackendState, BackendStates
from tests.gateway.conftest import StartGateway
from tests.gateway.platform import Pushed, RunningGateway, backends, until
from tests.gateway.scripted_upstream import Received, Session, answer_politely, chunk, run_upstream

BODY = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def client(gateway: RunningGateway, key: str | None = None) -> httpx.AsyncClient:
    authorization = gateway.authorization if key is None else f"Bearer {key}"
    return httpx.AsyncClient(base_url=gateway.base_url, headers={"authorization": authorization}, timeout=30)


async def ask(to: httpx.AsyncClient, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await to.post("/v1/chat/completions", json=BODY, headers=named)


async def push_states(pushed: Pushed, **states: BackendState) -> None:
    pushed.versions += 1
    named = {name.replace("_", "-"): state for name, state in states.items()}
    document = BackendStates(version=pushed.versions, written_at=time.time(), states=named)
    await pushed.put(redis_keys.BACKEND_STATES, document)


def state(health: str = "ready", **more: Any) -> BackendState:
    return BackendState(health=health, since=0, **more)  # type: ignore[arg-type]


@asynccontextmanager
async def upstreams(count: int) -> Any:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(run_upstream(answer_politely)) for _ in range(count)]


class Gate:
    """A script that answers when it is let."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.at_it = 0
        self.at_it_max = 0

    async def __call__(self, received: Received, session: Session) -> None:
        self.at_it += 1
        self.at_it_max = max(self.at_it_max, self.at_it)
        try:
            await self.opened.wait()
        finally:
            self.at_it -= 1
        await answer_politely(received, session)


async def hang(received: Received, session: Session) -> None:
    await session.wait_closed_by_peer()


async def fail(received: Received, session: Session) -> None:
    await session.send_json({"error": {"message": "broken"}}, status=500)


async def test_an_answer_says_who_gave_it_and_how_many_were_asked(start_gateway: StartGateway, pushed: Pushed) -> None:
    async with upstreams(2) as (bad, good):
        bad.script = fail
        await pushed.everything(bad.url, good.url, policy={"strategy": "priority"})
        gateway = await start_gateway()
        await gateway.until_ready()
        async with client(gateway) as http:
            answer = await ask(http)
        assert answer.status_code == 200
        assert (answer.headers["x-ias-backend"], answer.headers["x-ias-attempts"]) == ("backend-1", "2")
        (record,) = await gateway.records(1)
        assert record["decision"]["attempts"] == ["backend-0: 500"]
        assert record["decision"]["candidates"]["backend-0"] == "failed_recently"
        await gateway.until_nothing_is_held()


async def test_a_backend_that_hangs_is_replaced_within_the_routes_timeout(
    start_gateway: StartGateway, pushed: Pushed
) -> None:
    async with upstreams(2) as (hung, good):
        hung.script = hang
        policy = {"strategy": "priority", "first_byte_timeout_s": 0.3}
        await pushed.everything(hung.url, good.url, policy=policy)
        gateway = await start_gateway()
        await gateway.until_ready()
        async with client(gateway) as http:
            answer = await ask(http)
        assert (answer.status_code, answer.headers["x-ias-attempts"]) == (200, "2")
        await gateway.until_nothing_is_held()


async def test_a_route_says_how_many_are_tried(start_gateway: StartGateway, pushed: Pushed) -> None:
    async with upstreams(3) as all_of_them:
        for one in all_of_them:
            one.script = fail
        await pushed.everything(*(one.url for one in all_of_them), policy={"attempts_max": 2})
        gateway = await start_gateway()
        await gateway.until_ready()
        async with client(gateway) as http:
            answer = await ask(http)
        assert answer.status_code == 500
        assert sum(len(one.received) for one in all_of_them) == 2
        await gateway.until_nothing_is_held()


async def test_what_the_registry_knows_of_backends_decides_at_once(start_gateway: StartGateway, pushed: Pushed) -> None:
    async with upstreams(3) as (a, b, c):
        await pushed.everything(a.url, b.url, c.url)
        await push_states(pushed, backend_0=state("unready"), backend_1=state(circuit="open"), backend_2=state())
        gateway = await start_gateway()
        await gateway.until_ready()
        routers = gateway.worker.gateway.routers
        async with client(gateway) as http:
            await until(lambda: gateway.worker.gateway.snapshots.backend_states is not None)
            for _ in range(5):
                assert (await ask(http)).headers["x-ias-backend"] == "backend-2"
            await push_states(pushed, backend_0=state(), backend_1=state("unready"), backend_2=state("unready"))
            await until(lambda: "backend-2" in routers._desks["m"].router.survey.reasons)
            assert (await ask(http)).headers["x-ias-backend"] == "backend-0"
            await push_states(pushed, **{f"backend_{n}": state("unready") for n in range(3)})
            await until(lambda: not routers._desks["m"].router.survey.tiers)
            refused = await ask(http)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_backend_available")
        assert "retry-after" in refused.headers
        await gateway.until_nothing_is_held()


async def test_a_recovered_backend_gets_a_tenth_at_first_and_its_whole_share_in_the_end(
    start_gateway: StartGateway, pushed: Pushed
) -> None:
    async with upstreams(2) as both:
        await pushed.everything(*(one.url for one in both), policy={"strategy": "weighted"})
        gateway = await start_gateway()
        await gateway.until_ready()
        snapshots, now = gateway.worker.gateway.snapshots, int(time.time())

        async def share(recovered: BackendState) -> float:
            await push_states(pushed, backend_0=recovered, backend_1=state())
            await until(
                lambda: snapshots.backend_states is not None and snapshots.backend_states.version == pushed.versions
            )
            seen = Counter([(await ask(http)).headers["x-ias-backend"] for _ in range(200)])
            return seen["backend-0"] / 200

        async with client(gateway) as http:
            assert await share(BackendState(health="ready", since=now, ramps_until=now + 1000)) < 0.2
            assert await share(BackendState(health="ready", since=now - 500, ramps_until=now + 500)) > 0.2
            assert await share(BackendState(health="ready", since=now - 1000, ramps_until=now - 1)) > 0.35


async def test_the_registry_hears_what_was_seen_of_backends(start_gateway: StartGateway, pushed: Pushed) -> None:
    async with upstreams(2) as (bad, good):
        bad.script = fail
        await pushed.everything(bad.url, good.url, policy={"strategy": "priority"})
        gateway = await start_gateway()
        await gateway.until_ready()
        async with client(gateway) as http:
            for _ in range(3):
                assert (await ask(http)).status_code == 200
        seen: Counter[str] = Counter()
        async with asyncio.timeout(10):
            while seen["backend-1:succeeded"] < 3:
                seen.clear()
                for key in await pushed.redis.keys("ias:backend_outcomes:*"):
                    assert 0 < await pushed.redis.ttl(key) <= 60
                    seen.update({n.decode(): int(v) for n, v in (await pushed.redis.hgetall(key)).items()})  # type: ignore[misc]
                await asyncio.sleep(0.05)
        assert seen == {"backend-0:failed": 1, "backend-1:succeeded": 3}


async def test_the_canary_has_its_share_and_sessions_stay(start_gateway: StartGateway, pushed: Pushed) -> None:
    async with upstreams(2) as (stable, canary):
        both = (*backends(stable.url), *backends(canary.url, id="canary", group="canary"))
        await pushed.everything(stable.url)
        await pushed.routes({"m": {"backends": both, "policy": {"canary_percent": 20}}})
        gateway = await start_gateway()
        await gateway.until_ready()
        async with client(gateway) as http:
            seen = Counter([(await ask(http)).headers["x-ias-backend"] for _ in range(50)])
            assert seen["canary"] == 10
            for session in range(10):
                same = {(await ask(http, x_session_id=str(session))).headers["x-ias-backend"] for _ in range(3)}
                assert len(same) == 1


async def test_more_than_a_backend_bears_waits_and_is_told_how_long(
    start_gateway: StartGateway, pushed: Pushed
) -> None:
    gate = Gate()
    async with run_upstream(gate) as only:
        await pushed.everything(only.url)
        await pushed.routes({"m": {"backends": backends(only.url, concurrency_max=2)}})
        gateway = await start_gateway()
        await gateway.until_ready()
        routers = gateway.worker.gateway.routers
        async with client(gateway) as http:
            asked = [asyncio.create_task(ask(http)) for _ in range(6)]
            await until(lambda: routers.waiting == 4 and gate.at_it == 2)
            asked[-1].cancel()
            await until(lambda: routers.waiting == 3)
            gate.opened.set()
            answers = await asyncio.gather(*asked[:-1])
            waits = [record["decision"].get("queue_wait_ms") for record in await gateway.records(5)]
            metrics = gateway.metrics()
        assert {answer.status_code for answer in answers} == {200}
        assert gate.at_it_max == 2
        assert sum(wait is not None for wait in waits) == 3
        assert 'ias_gateway_queue_wait_seconds_count{model="m"} 3' in metrics
        await gateway.until_nothing_is_held()


async def test_who_waits_too_long_is_refused_with_when_to_come_back(
    start_gateway: StartGateway, pushed: Pushed
) -> None:
    gate = Gate()
    async with run_upstream(gate) as only:
        await pushed.everything(only.url)
        policy = {"queue_timeout_s": 0.2}
        await pushed.routes({"m": {"backends": backends(only.url, concurrency_max=1), "policy": policy}})
        gateway = await start_gateway(gateway_queue_length_max=2)
        await gateway.until_ready()
        async with client(gateway) as http:
            asked = [asyncio.create_task(ask(http)) for _ in range(4)]
            await until(lambda: sum(one.done() for one in asked) == 3)
            gate.opened.set()
            await asyncio.gather(*asked)
        codes = Counter((one.result().status_code, one.result().json().get("error", {}).get("code")) for one in asked)
        assert codes == {(200, None): 1, (503, "overloaded"): 2, (429, "queue_full"): 1}
        refused = [one.result() for one in asked if one.result().status_code != 200]
        assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
        await gateway.until_nothing_is_held()


async def order_of_turns(
    start_gateway: StartGateway, pushed: Pushed, asked: Iterable[str], *, weight: int = 100
) -> list[str]:
    """In which order a backend with one place serves requests of the orgs "one" and "two", which come all at once."""
    gate = Gate()
    order: list[str] = []
    async with run_upstream(gate) as only:
        await pushed.everything(only.url)
        await pushed.routes({"m": {"backends": backends(only.url, concurrency_max=1)}})
        await pushed.tenants(org="org-2", project="project-2")
        await pushed.ceilings(org="org-2", queue_weight=weight)
        key_of_two = await pushed.api_key(generate_key(), key_id="key-2", org_id="org-2", project_id="project-2")
        gateway = await start_gateway()
        await gateway.until_ready()
        routers = gateway.worker.gateway.routers

        async def note(name: str, http: httpx.AsyncClient) -> None:
            assert (await ask(http)).status_code == 200
            order.append(name)

        async with client(gateway) as one, client(gateway, key_of_two) as two:
            tasks: list[asyncio.Task[None]] = []
            for waiting, name in enumerate(asked):
                tasks.append(asyncio.create_task(note(name, one if name == "one" else two)))
                await until(lambda n=waiting: routers.waiting == n)  # type: ignore[misc]
            gate.opened.set()
            await asyncio.gather(*tasks)
        await gateway.until_nothing_is_held()
    return order


async def test_a_flooding_org_does_not_keep_another_waiting(start_gateway: StartGateway, pushed: Pushed) -> None:
    order = await order_of_turns(start_gateway, pushed, ["one"] * 12 + ["two"])
    assert order.index("two") <= 2


async def test_an_org_of_three_times_the_weight_is_given_three_turns_for_one(
    start_gateway: StartGateway, pushed: Pushed
) -> None:
    order = await order_of_turns(start_gateway, pushed, ["one", "two"] * 12, weight=300)
    assert 10 <= order[:16].count("two") <= 12


async def test_an_org_says_which_of_its_own_requests_go_first(start_gateway: StartGateway, pushed: Pushed) -> None:
    gate = Gate()
    async with run_upstream(gate) as only:
        await pushed.everything(only.url)
        await pushed.routes({"m": {"backends": backends(only.url, concurrency_max=1)}})
        gateway = await start_gateway()
        await gateway.until_ready()
        order: list[str] = []

        async def note(priority: str, http: httpx.AsyncClient) -> None:
            assert (await ask(http, x_ias_priority=priority)).status_code == 200
            order.append(priority)

        async with client(gateway) as http:
            tasks = []
            for waiting, priority in enumerate(["normal", "low", "normal", "nonsense", "HIGH"]):
                tasks.append(asyncio.create_task(note(priority, http)))
                await until(lambda n=waiting: gateway.worker.gateway.routers.waiting == n)  # type: ignore[misc]
                await until(lambda: gate.at_it == 1)
            gate.opened.set()
            await asyncio.gather(*tasks)
        assert order == ["normal", "HIGH", "normal", "nonsense", "low"]


async def test_the_kill_switch_ends_what_a_backend_serves_and_moves_what_has_not_begun(
    start_gateway: StartGateway, pushed: Pushed
) -> None:
    begun = asyncio.Event()

    async def begin_and_stop(received: Received, session: Session) -> None:
        if received.document.get("stream"):
            await session.begin_stream()
            await session.event(chunk("Hel"))
            begun.set()
        await session.wait_closed_by_peer()

    async with upstreams(2) as (killed, other):
        killed.script = begin_and_stop
        both = backends(killed.url, other.url)
        await pushed.everything(killed.url, other.url)
        await pushed.routes({"m": {"backends": both, "policy": {"strategy": "priority"}}})
        gateway = await start_gateway()
        await gateway.until_ready()
        async with client(gateway) as http:
            whole = asyncio.create_task(ask(http))
            streamed = asyncio.create_task(http.post("/v1/chat/completions", json={**BODY, "stream": True}))
            await begun.wait()
            await until(lambda: len(killed.received) == 2)
            off = (*backends(killed.url, enabled=False), both[1])
            await pushed.routes({"m": {"backends": off, "policy": {"strategy": "priority"}}})
            answer, broken = await whole, await streamed
            assert (answer.status_code, answer.headers["x-ias-backend"]) == (200, "backend-1")
            assert "upstream_disabled" in broken.text
            assert broken.text.endswith("data: [DONE]\n\n")
            assert (await ask(http)).headers["x-ias-backend"] == "backend-1"
        await gateway.until_nothing_is_held()


async def test_a_sleeping_model_is_woken_by_one_call_and_its_requests_wait(
    start_gateway: StartGateway, pushed: Pushed
) -> None:
    awake = asyncio.Event()

    async def sleeper(received: Received, session: Session) -> None:
        if received.path == "/wake_up":
            await awake.wait()
            await session.send_json({})
        else:
            await answer_politely(received, session)

    async with run_upstream(sleeper) as only:
        await pushed.everything(only.url)
        await push_states(pushed, backend_0=state("cold"))
        gateways = [await start_gateway() for _ in range(2)]
        for gateway in gateways:
            await gateway.until_ready()
            await until(lambda g=gateway: g.worker.gateway.snapshots.backend_states is not None)  # type: ignore[misc]
        async with client(gateways[0]) as first, client(gateways[1]) as second:
            asked = [asyncio.create_task(ask(http)) for http in (first, second) for _ in range(10)]
            await until(lambda: sum(g.worker.gateway.routers.waiting for g in gateways) == 20)
            await until(lambda: len(only.received) == 1)
            awake.set()
            await push_states(pushed, backend_0=state())
            answers = await asyncio.gather(*asked)
        assert {answer.status_code for answer in answers} == {200}
        assert [received.path for received in only.received].count("/wake_up") == 1
        for gateway in gateways:
            await gateway.until_nothing_is_held()


async def test_a_model_that_does_not_wake_in_time_is_refused_with_when_to_come_back(
    start_gateway: StartGateway, pushed: Pushed
) -> None:
    async with run_upstream(fail) as only:
        await pushed.everything(only.url, policy={"queue_timeout_s": 0.2})
        await push_states(pushed, backend_0=state("cold"))
        gateway = await start_gateway()
        await gateway.until_ready()
        await until(lambda: gateway.worker.gateway.snapshots.backend_states is not None)
        async with client(gateway) as http:
            answer = await ask(http)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_waking")
        assert "retry-after" in answer.headers


async def test_workers_hear_what_others_gave_to_orgs(start_gateway: StartGateway, pushed: Pushed) -> None:
    async with upstreams(2) as both:
        await pushed.everything(*(one.url for one in both))
        gateways = [await start_gateway() for _ in range(2)]
        for gateway in gateways:
            await gateway.until_ready()
        routers = [gateway.worker.gateway.routers for gateway in gateways]
        await until(lambda: all(one._sharers == 2 for one in routers))
        async with client(gateways[0]) as http:
            assert (await ask(http)).status_code == 200
        queue = routers[1]._desks["m"].router.queue
        await until(lambda: queue._heard.get("org-1", 0) > 0)
        routers[0]._desks["m"].router.kept_needed = 1
        await until(lambda: routers[1]._desks["m"].router._heard.most == 1)
        for name in ("given_work", "kept_backends"):
            keys = await pushed.redis.keys(f"ias:{name}:*")
            assert keys
            for key in keys:
                assert 0 < await pushed.redis.ttl(key) <= 10


async def test_workers_share_what_a_backend_bears(start_gateway: StartGateway, pushed: Pushed) -> None:
    gate = Gate()
    async with run_upstream(gate) as only:
        await pushed.everything(only.url)
        await pushed.routes({"m": {"backends": backends(only.url, concurrency_max=4)}})
        gateways = [await start_gateway() for _ in range(2)]
        for gateway in gateways:
            await gateway.until_ready()
        await until(lambda: all(g.worker.gateway.routers._sharers == 2 for g in gateways))
        async with client(gateways[0]) as first, client(gateways[1]) as second:
            asked = [asyncio.create_task(ask(http)) for http in (first, second) for _ in range(6)]
            await until(lambda: sum(g.worker.gateway.routers.waiting for g in gateways) == 8 and gate.at_it == 4)
            gate.opened.set()
            assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}
        assert gate.at_it_max == 4

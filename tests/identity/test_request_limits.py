"""How often one may ask is told, held, and not stretched by what a caller says of themselves."""

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.identity.platform import ADMIN_EMAIL, ADMIN_PASSWORD, Identity, running, settings_for

READS, WRITES, CREDENTIALS = 8, 4, 6
ORGS = "/identity/v1/orgs"
SESSIONS = "/identity/v1/sessions"
LEAKED = "/identity/v1/leaked-keys"


@pytest.fixture
async def strict(database_url: str, redis_url: str) -> AsyncIterator[Identity]:
    settings = settings_for(
        database_url,
        redis_url,
        rate_limit_reads_per_minute=READS,
        rate_limit_writes_per_minute=WRITES,
        rate_limit_credentials_per_minute=CREDENTIALS,
        trusted_proxies=("10.0.0.0/8",),
    )
    async with running(settings) as service:
        yield service


def assert_over_limit(answer: httpx.Response, name: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_requests"), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert f'"{name}";q=' in answer.headers["ratelimit-policy"]
    assert f'"{name}";r=0;t=' in answer.headers["ratelimit"]


async def test_a_caller_who_asks_too_often_is_told_when_to_come_back(strict: Identity) -> None:
    caller = await strict.sign_in()
    answers = [await caller.get(ORGS) for _ in range(READS + 1)]
    assert_over_limit(answers[-1], "reads")
    assert {answer.status_code for answer in answers[: READS - 1]} == {200}
    # Writes are counted apart, a refused one and a dry run like any other.
    writes = [await caller.post(f"{ORGS}?dry_run=true", json={"name": "x"}) for _ in range(WRITES + 1)]
    assert [answer.status_code for answer in writes] == [200] * WRITES + [429]
    assert_over_limit(writes[-1], "writes")


async def test_a_second_session_of_one_user_has_no_quota_of_its_own(strict: Identity) -> None:
    first, second = await strict.sign_in(), await strict.sign_in()
    for _ in range(READS):
        await first.get(ORGS)
    assert_over_limit(await second.get(ORGS), "reads")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (SESSIONS, {"email": ADMIN_EMAIL, "password": "a guess"}),
        (f"{SESSIONS}/refresh", {"refresh_token": "a guess"}),
        (f"{SESSIONS}/second-factor", {"challenge": "a guess", "code": "000000"}),
        ("/identity/v1/invitations/look-up", {"token": "a guess"}),
        ("/identity/v1/password-resets/complete", {"token": "a guess", "password": "long enough"}),
        (LEAKED, {"keys": ["ias-sk-guess"], "found_at": "nowhere"}),
    ],
)
async def test_whoever_needs_no_token_is_counted_by_their_address_whatever_they_say_it_is(
    strict: Identity, path: str, body: dict[str, object]
) -> None:
    caller = await strict.anonymous()
    answers = []
    for number in range(CREDENTIALS + 1):
        told = {"x-forwarded-for": f"198.51.100.{number}", "forwarded": f"for=198.51.100.{number}"}
        asked = body | (
            {"email": f"{number}@example.com"} if "email" in body else {}
        )  # an e-mail has a lock of its own
        answers.append(await caller.post(path, json=asked, headers=told))
    assert 429 not in {answer.status_code for answer in answers[:CREDENTIALS]}
    assert_over_limit(answers[-1], "credentials")


async def test_behind_a_trusted_proxy_each_client_has_their_own_quota_and_invents_no_other(strict: Identity) -> None:
    transport = httpx.ASGITransport(strict.app, client=("10.0.0.1", 1))
    body = {"keys": ["ias-sk-guess"], "found_at": "nowhere"}

    async def ask(forwarded_for: str) -> int:
        answer = await client.post(LEAKED, json=body, headers={"x-forwarded-for": forwarded_for})
        return answer.status_code

    async with httpx.AsyncClient(transport=transport, base_url="http://identity") as client:
        # The proxy appends whom it sees; what stands before is the client's own invention.
        invented = [await ask(f"203.0.113.{number}, 198.51.100.7") for number in range(CREDENTIALS + 1)]
        assert invented == [202] * CREDENTIALS + [429]
        assert await ask("198.51.100.8") == 202


async def test_a_right_password_is_not_found_by_waiting_out_one_limit_alone(strict: Identity) -> None:
    """The quota of the address comes back soon; the lock of the e-mail is another thing and stays."""
    caller = await strict.anonymous()
    for _ in range(CREDENTIALS):
        await caller.post(SESSIONS, json={"email": ADMIN_EMAIL, "password": "a guess"})
    elsewhere = httpx.ASGITransport(strict.app, client=("192.0.2.44", 1))
    async with httpx.AsyncClient(transport=elsewhere, base_url="http://identity") as client:
        answer = await client.post(SESSIONS, json={"email": ADMIN_EMAIL, "password": ADMIN_PASSWORD})
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_attempts")

"""What is made once, when the service starts: whoever starts first, however many at a time."""

from tests.identity.database import fetch
from tests.identity.platform import ADMIN_PASSWORD, running, settings_for


async def test_the_first_administrator_is_made_once_and_keeps_their_password(database_url: str, redis_url: str) -> None:
    async with running(settings_for(database_url, redis_url)):
        pass
    settings = settings_for(database_url, redis_url, identity_admin_email="other@example.com")
    async with running(settings) as identity:
        await identity.sign_in(password=ADMIN_PASSWORD)
    rows = await fetch(database_url, "SELECT email FROM users WHERE platform_admin")
    assert [row["email"] for row in rows] == ["root@example.com"]


async def test_two_processes_that_start_together_agree_on_one_signing_key(database_url: str, redis_url: str) -> None:
    settings = settings_for(database_url, redis_url)
    async with running(settings) as first, running(settings) as second:
        caller = await first.sign_in()
        neighbour = await second.anonymous()
        neighbour.headers["authorization"] = caller.headers["authorization"]
        await neighbour.ok("GET", "/identity/v1/me")
    assert len(await fetch(database_url, "SELECT 1 FROM signing_keys")) == 1

"""Whatever is sent to a management API, its answer is one that the API's OpenAPI document describes, and never a 5xx."""

from collections.abc import Iterator
from typing import Any

import pytest
from contracts.generate import build_app

from tests.contracts.described_answers import send_to_everything
from tests.contracts.management_platform import SERVICES, Platform, running_platform

CALLERS = ("platform_admin", "member")

ENDS_THE_CALLER = (
    "/identity/v1/sessions/current",
    "/identity/v1/sessions/others",
    "/identity/v1/sessions/{session_id}",
)
"""Only tried, as everything after would be a 401."""


@pytest.fixture(scope="module")
def platform(postgres_url: str, redis_server_url: str) -> Iterator[Platform]:
    with running_platform(postgres_url, redis_server_url) as running:
        yield running


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("service", SERVICES)
def test_every_answer_is_a_described_one(platform: Platform, service: str, caller: str) -> None:
    def token_of(operation: Any) -> str:
        return platform.tokens[f"internal {service}" if operation.path.startswith("/internal/") else caller]

    def prepare(case: Any, about_what_is: bool) -> None:
        if about_what_is:
            put_in_ids(case, platform.ids)
        if case.operation.path in ENDS_THE_CALLER:
            case.query = {"dry_run": "true"}

    send_to_everything(build_app(service).openapi(), platform.url, token_of, prepare)


def put_in_ids(case: Any, ids: dict[str, str]) -> None:
    """Let a request be about things that exist."""
    for place in (case.path_parameters, case.query, case.body):
        if isinstance(place, dict):
            for name in place.keys() & ids.keys():
                place[name] = ids[name]

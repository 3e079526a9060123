"""Whatever is sent to a management API, its answer is one that the API's OpenAPI document describes, and never a 5xx."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from contracts.generate import build_app
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.contracts.management_platform import SERVICES, Platform, running_platform

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
CALLERS = ("platform_admin", "member")
EXAMPLES = int(os.environ.get("IAS_TEST_EXAMPLES", "8"))
"""Requests to each operation by each caller. A hundred take half an hour."""

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
    send_to_everything(platform, service, caller, EXAMPLES)


def send_to_everything(platform: Platform, service: str, caller: str, examples: int) -> None:
    """Send `examples` requests to each operation, half of them about things that exist. Tells every operation that failed."""
    schema = schemathesis.openapi.from_dict(build_app(service).openapi())
    only = os.environ.get("IAS_TEST_OPERATION", "")
    failures = []
    with requests.Session() as session:
        for found in schema.get_all_operations():
            operation = found.ok()
            if only in operation.label:
                try:
                    send_to(platform, operation, session, caller, examples)
                except (Exception, FailureGroup) as error:  # noqa: BLE001  # whatever was met is told below, for all operations
                    failures.append(f"{operation.label}\n{describe(error)}")
    assert not failures, "\n\n".join(failures)


def send_to(platform: Platform, operation: Any, session: requests.Session, caller: str, examples: int) -> None:
    internal = operation.path.startswith("/internal/")
    token = platform.tokens[
        f"internal {operation.schema.raw_schema['info']['title'].split()[1]}" if internal else caller
    ]

    @settings(
        max_examples=examples,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=requests_to(operation), about_what_is=st.booleans())
    def send(case: Any, about_what_is: bool) -> None:
        if about_what_is:
            put_in_ids(case, platform.ids)
        if operation.path in ENDS_THE_CALLER:
            case.query = {"dry_run": "true"}
        case.headers = {name: value for name, value in (case.headers or {}).items() if name.lower() != "authorization"}
        response = case.call(
            base_url=platform.url, session=session, headers={"authorization": f"Bearer {token}"}, timeout=60
        )
        case.validate_response(response, checks=CHECKS)

    send()


def requests_to(operation: Any) -> st.SearchStrategy[Any]:
    """Right ones, and wrong ones where something can be wrong."""
    right = operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE)
    if not list(operation.iter_parameters()) and not operation.body:
        return right
    return st.one_of(right, operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE))


def put_in_ids(case: Any, ids: dict[str, str]) -> None:
    """Let a request be about things that exist."""
    for place in (case.path_parameters, case.query, case.body):
        if isinstance(place, dict):
            for name in place.keys() & ids.keys():
                place[name] = ids[name]


def describe(error: BaseException) -> str:
    inner = [describe(one) for one in getattr(error, "exceptions", ())]
    return "\n".join([str(error), *inner])

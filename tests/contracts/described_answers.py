"""Requests made from an OpenAPI document, and checks that each answer is one that the document describes, never a 5xx."""

import os
from collections.abc import Callable
from typing import Any

import requests
import schemathesis
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

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = int(os.environ.get("IAS_TEST_EXAMPLES", "8"))
"""Requests to each operation by each caller. A hundred take half an hour."""

Prepare = Callable[[Any, bool], None]
"""Changes a request before it is sent; with True it is to be about things that exist."""
TokenOf = Callable[[Any], str]
"""The bearer token for an operation."""


def send_to_everything(document: dict[str, Any], url: str, token_of: TokenOf, prepare: Prepare) -> None:
    """Send `EXAMPLES` requests to each operation, half of them about things that exist. Tells every operation that failed."""
    schema = schemathesis.openapi.from_dict(document)
    only = os.environ.get("IAS_TEST_OPERATION", "")
    failures, sent = [], 0
    with requests.Session() as session:
        for found in schema.get_all_operations():
            operation = found.ok()
            if only in operation.label:
                sent += 1
                try:
                    _send_to(operation, session, url, token_of(operation), prepare)
                except (Exception, FailureGroup) as error:  # noqa: BLE001  # whatever was met is told below, for all operations
                    failures.append(f"{operation.label}\n{_describe(error)}")
    assert not failures, "\n\n".join(failures)
    assert sent, "the document describes nothing"


def _send_to(operation: Any, session: requests.Session, url: str, token: str, prepare: Prepare) -> None:
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=_requests_to(operation), about_what_is=st.booleans())
    def send(case: Any, about_what_is: bool) -> None:
        prepare(case, about_what_is)
        case.headers = {name: value for name, value in (case.headers or {}).items() if name.lower() != "authorization"}
        response = case.call(base_url=url, session=session, headers={"authorization": f"Bearer {token}"}, timeout=60)
        case.validate_response(response, checks=CHECKS)

    send()


def _requests_to(operation: Any) -> st.SearchStrategy[Any]:
    """Right ones, and wrong ones where something can be wrong."""
    right = operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE)
    if not list(operation.iter_parameters()) and not operation.body:
        return right
    return st.one_of(right, operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE))


def _describe(error: BaseException) -> str:
    inner = [_describe(one) for one in getattr(error, "exceptions", ())]
    return "\n".join([str(error), *inner])

"""Lines laid out beforehand say what an encoder would have said, whatever the names in them."""

import json
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ias.contracts.api_keys import KeyRecord, TenantRecord
from ias.contracts.events import UsageRecord
from ias.contracts.routes import Backend
from ias.contracts.spending import Budget, Price, RateLimit, SpendingPolicy
from ias.gateway import record_lines
from ias.gateway.access_log import AccessLine
from ias.gateway.endpoints import CHAT_COMPLETIONS
from ias.gateway.record_lines import RecordLines, Timing
from ias.gateway.snapshots import Principal
from ias.gateway.token_counts import TokenCounts

if record_lines.__file__.endswith(".so"):
    pytest.skip("compiled lines take nothing but real exchanges", allow_module_level=True)

PRICE = Price(
    id="price",
    version=3,
    model="m",
    effective_at=0,
    input_nano_usd_per_million=1,
    cached_input_nano_usd_per_million=1,
    output_nano_usd_per_million=1,
)
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
COUNTS = st.integers(0, 2**53)


@dataclass
class Served:
    """As much of an exchange as the lines look at."""

    model: str
    org_id: str
    user_id: str | None
    backend_id: str
    budget_ids: tuple[str, ...] | None
    limit_ids: tuple[str, ...]
    priced: bool
    remaining_nano_usd: int | None
    output_tokens_max: int | None
    attempts: list[str]
    usage: TokenCounts
    streamed: bool
    endpoint: Any = CHAT_COMPLETIONS
    record_id: str = "019a0000-0000-7000-8000-000000000001"
    request_id: str = "req_019a0000000070008000000000000001"
    status: int = 200
    outcome: str = "completed"
    cost_nano_usd: int = 5
    reserved_nano_usd: int = 7
    expected_tokens: int = 9
    was_cut_off: bool = False
    ask: Any = None
    principal: Any = field(init=False)
    backend: Any = field(init=False)
    price: Any = field(init=False)
    plan: Any = field(init=False)

    def __post_init__(self) -> None:
        budgets = tuple(
            Budget(id=name, scope_kind="org", scope_id=self.org_id, window="total", limit_nano_usd=10, mode="hard")
            for name in self.budget_ids or ()
        )
        limits = tuple(
            RateLimit(id=name, scope_kind="org", scope_id=self.org_id, metric="tokens_per_minute", limit=10)
            for name in self.limit_ids
        )
        self.principal = Principal(
            KeyRecord(version=1, key_id="key", org_id=self.org_id, project_id="project", user_id=self.user_id),
            TenantRecord(version=1, id=self.org_id),
            TenantRecord(version=1, id="project"),
            SpendingPolicy(version=1, org_id=self.org_id, budgets=budgets, rate_limits=limits),
        )
        self.backend = Backend(id=self.backend_id, url="http://127.0.0.1/v1", upstream_model="u")
        self.price = PRICE if self.priced else None
        self.plan = None if self.budget_ids is None else self.principal.admission_plan(self.model, 1_800_000_000.0)


SERVED: st.SearchStrategy[Any] = st.builds(
    Served,
    model=NAMES,
    org_id=NAMES,
    user_id=st.none() | NAMES,
    backend_id=NAMES,
    budget_ids=st.none() | st.lists(NAMES, max_size=3).map(tuple),
    limit_ids=st.lists(NAMES, max_size=2).map(tuple),
    priced=st.booleans(),
    remaining_nano_usd=st.none() | COUNTS,
    output_tokens_max=st.none() | COUNTS,
    attempts=st.lists(NAMES, max_size=2),
    usage=st.builds(TokenCounts, COUNTS, COUNTS, COUNTS, st.booleans()),
    streamed=st.booleans(),
)


def timing(ttft_s: float | None) -> Timing:
    ttft_ms = None if ttft_s is None else f"{ttft_s * 1000:.3f}"
    return Timing("2026-11-23T00:00:00.000Z", 1.5, "1500.000", ttft_s, ttft_ms)


@given(SERVED, st.none() | st.just(0.25))
def test_a_usage_line_is_the_usage_record_of_its_request(served: Any, ttft_s: float | None) -> None:
    line = RecordLines(served).usage_record(served, timing(ttft_s))
    decision: dict[str, Any] = {"backend": served.backend_id}
    if served.plan is not None:
        decision["budgets"] = list(served.budget_ids)
        decision["reserved_nano_usd"] = served.reserved_nano_usd
        decision["remaining_nano_usd"] = served.remaining_nano_usd
        if served.limit_ids:
            decision["rate_limits"] = list(served.limit_ids)
            decision["expected_tokens"] = served.expected_tokens
    if served.output_tokens_max is not None:
        decision["output_tokens_max"] = served.output_tokens_max
    if served.attempts:
        decision["attempts"] = served.attempts
    assert line.endswith("}\n")
    assert line.count("\n") == 1
    assert msgspec.json.decode(line, type=UsageRecord) == UsageRecord(
        id="019a0000-0000-7000-8000-000000000001",
        request_id=served.request_id,
        occurred_at="2026-11-23T00:00:00.000Z",
        org_id=served.org_id,
        project_id="project",
        api_key_id="key",
        user_id=served.user_id,
        service_account_id=None,
        endpoint="/v1/chat/completions",
        model=served.model,
        backend_id=served.backend_id,
        streamed=served.streamed,
        status=200,
        outcome="completed",
        input_tokens=served.usage.input_tokens,
        cached_input_tokens=served.usage.cached_input_tokens,
        output_tokens=served.usage.output_tokens,
        estimated=served.usage.estimated,
        price_id="price" if served.priced else None,
        price_version=3 if served.priced else None,
        cost_nano_usd=5,
        ttft_ms=None if ttft_s is None else 250.0,
        duration_ms=1500.0,
        decision=decision,
    )


@given(SERVED)
def test_an_access_line_says_who_asked_for_what_and_how_it_went(served: Any) -> None:
    line = RecordLines(served).access_line(served, timing(0.25))
    assert line.count("\n") == 1
    told = msgspec.json.decode(line, type=AccessLine)
    assert set(json.loads(line)) <= set(AccessLine.__struct_fields__)
    assert (told.org_id, told.api_key_id, told.model, told.backend_id) == (
        served.org_id,
        "key",
        served.model,
        served.backend_id,
    )
    assert (told.method, told.path, told.status, told.duration_ms, told.ttft_ms) == (
        "POST",
        "/v1/chat/completions",
        200,
        1500.0,
        250.0,
    )
    assert (told.input_tokens, told.output_tokens) == (served.usage.input_tokens, served.usage.output_tokens)

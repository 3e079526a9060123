"""What may be written down of a change: no secret, bounded, nothing that JSON or PostgreSQL cannot hold."""

import json
from typing import Any
from uuid import UUID

import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from ias.kit.audit import MASKED, VALUES_BYTES_MAX, Cause, Change, make_records, mask

SECRET = "ias-sk-very-secret"
SECRET_NAMES = (
    "password",
    "new_password",
    "credential",
    "client_secret",
    "refresh_token",
    "api_key",
    "key",
    "otp",
    "totp_secret",
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(SECRET + "x"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(
    inside=st.lists(st.sampled_from(["list", "dict"]), max_size=5),
    name=st.sampled_from(SECRET_NAMES),
    value=st.just(SECRET) | st.just([SECRET]) | st.just({"x": SECRET}),
)
def test_a_secret_is_masked_wherever_it_stands(inside: list[str], name: str, value: Any) -> None:
    values: Any = {name: value, "name": "kept"}
    for layer in inside:
        values = {"items": [values]} if layer == "list" else {"inner": values}
    told = json.dumps(mask(values))
    assert SECRET not in told
    assert (MASKED in told and "kept" in told) or "[too deep]" in told


def test_what_only_speaks_of_secrets_is_told() -> None:
    told = {
        "has_credential": True,
        "credential_replaced": True,
        "credential_from": "env:IAS_BACKEND_CREDENTIAL_A",
        "tokens_per_minute": 5,
        "output_tokens_max": 1,
        "key_id": "k",
    }
    assert mask(told) == told
    assert mask({"password": None}) == {"password": None}


@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=5))
def test_whatever_is_given_has_a_canonical_form_and_no_nul(values: dict[str, Any]) -> None:
    told = mask(values)
    assert b"\\u0000" not in rfc8785.dumps(told)
    assert mask(told) == told


def test_values_that_are_too_large_leave_their_names() -> None:
    told = mask({"models": ["m" * 100] * 1000, "name": "x"})
    assert told == {"too_large": True, "fields": ["models", "name"]}
    assert len(json.dumps(told)) < VALUES_BYTES_MAX


def test_what_a_client_says_of_itself_is_cut() -> None:
    cause = Cause("user", "a", user_agent="x" * 10_000)
    [record] = make_records("probe", cause, [Change("org.create", UUID(int=1))])
    assert len(record.user_agent or "") == 200

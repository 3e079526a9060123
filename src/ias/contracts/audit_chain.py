"""The hash chain of the audit log: what identity writes and anybody can check without it.

An entry is a JSON object. Its `hash` is SHA-256, in hexadecimal, over the canonical JSON (RFC 8785) of all its other fields, one
of which is the `previous_hash`. A checkpoint is a signed statement of where a chain ended: a JWS (RFC 7515) over
`{"chain_id", "sequence", "hash", "at"}`, signed with a key of identity's.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import rfc8785

FIRST_HASH = "0" * 64
"""What the first entry of a chain has for `previous_hash`."""

CHECKPOINT_TYPE = "ias-audit-checkpoint"
"""The `typ` of a checkpoint's header, so that no other text signed with the same key is taken for one."""

INTEGER_MAX = 2**53 - 1
"""The largest integer that canonical JSON can hold."""


def hash_entry(entry: Mapping[str, Any]) -> str:
    """The hash that an entry, given as it stands in JSON, should have.

    Raises:
        ValueError: it holds what canonical JSON cannot, an integer above `INTEGER_MAX` say.
    """
    return hashlib.sha256(rfc8785.dumps({name: value for name, value in entry.items() if name != "hash"})).hexdigest()

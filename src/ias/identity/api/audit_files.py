"""The audit log as files.

NDJSON: lines `{"checkpoint": "<JWS>"}` first, then lines `{"entry": {…}}` in the order of the chain, each entry exactly what its
hash was made of. CSV: a row for each entry, `before` and `after` as JSON.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal

from ias.identity.core.audit_log import render_entry
from ias.identity.store.audit_log import AuditEntry
from ias.kit.csv_rows import guard_text, render_rows

Format = Literal["ndjson", "csv"]
MEDIA_TYPES: Mapping[Format, str] = {"ndjson": "application/x-ndjson", "csv": "text/csv"}


async def write_ndjson(checkpoints: Sequence[str], batches: AsyncIterator[list[AuditEntry]]) -> AsyncIterator[str]:
    """The lines that `ias audit verify` reads, some at a time."""
    yield "".join(_line({"checkpoint": signed}) for signed in checkpoints)
    async for batch in batches:
        yield "".join(_line({"entry": render_entry(row)}) for row in batch)


async def write_csv(batches: AsyncIterator[list[AuditEntry]]) -> AsyncIterator[str]:
    """Rows for a spreadsheet, some at a time."""
    names = list(AuditEntry.__dataclass_fields__)
    yield render_rows([names])
    async for batch in batches:
        yield render_rows([[_cell(entry[name]) for name in names] for entry in map(render_entry, batch)])


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


def _cell(value: Any) -> str:
    """A value as text; one that a spreadsheet would run begins with an apostrophe instead."""
    if value is None:
        return ""
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
    return guard_text(text)

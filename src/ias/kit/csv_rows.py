"""Rows of CSV that a spreadsheet may open: no text of a cell is run as a formula."""

import csv
import io
from collections.abc import Sequence

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What makes a spreadsheet take a cell for a formula (OWASP, CSV injection); the last four are full-width forms."""


def render_rows(rows: Sequence[Sequence[str]]) -> str:
    """The lines, as RFC 4180 has them."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def guard_text(text: str) -> str:
    """A cell for text that somebody chose: one that a spreadsheet would run begins with an apostrophe instead."""
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text

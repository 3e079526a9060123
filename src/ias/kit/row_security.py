"""The second wall between orgs: PostgreSQL itself shows and changes only rows of the orgs that a transaction reaches.

The first wall is the `OrgScope` that every query asks for. Should a query forget it, the row's policy still compares the row's
org with `ias.orgs`, which `kit.database` sets as a transaction begins: the orgs of the caller's token within a management request
(`kit.authorization` narrows to them), every org for what runs for no tenant: workers, event consumers, `/internal`, signing in.

A transaction that sets nothing (somebody's own connection) sees no row. Superusers and roles with BYPASSRLS see all of them;
services connect as neither.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
EVERY_ORG = "*"
SETTING = "ias.orgs"
"""Holds `*`, or ids of orgs with commas between."""

_REACHED: ContextVar[str] = ContextVar(SETTING, default=EVERY_ORG)

_REACHES = (
    f"(SELECT current_setting('{SETTING}', true)) = '{EVERY_ORG}' OR {{column}} = ANY ("
    f"(SELECT string_to_array(nullif(current_setting('{SETTING}', true), '{EVERY_ORG}'), ',')::uuid[])::uuid[])"
)
"""The sub-selects are computed once per statement, and keep the planner from casting `*` to a UUID."""


def build_reach() -> str:
    """What a transaction that begins now says first. It is no query, so that the isolation level may follow it."""
    return f"SET LOCAL {SETTING} = '{_REACHED.get()}'"


def narrow(org_ids: Iterable[str]) -> None:
    """From here to the end of the request, reach these orgs alone. What is no UUID is no org's id, and left out."""
    _REACHED.set(",".join(sorted({org_id for org_id in org_ids if _UUID.fullmatch(org_id)})))


@contextmanager
def reaching_every_org() -> Iterator[None]:
    """For a block within which the platform itself acts; what the block narrows ends with it."""
    token = _REACHED.set(EVERY_ORG)
    try:
        yield
    finally:
        _REACHED.reset(token)


def build_wall(table: str, *, column: str = "org_id") -> list[str]:
    """The statements that put a table behind the wall, for a migration. `column` holds the row's org."""
    return [*_enable(table), f"CREATE POLICY org_wall ON {table} USING ({_REACHES.format(column=column)})"]


def build_wall_behind(table: str, *, parent: str, reference: str) -> list[str]:
    """The statements for a table without an org of its own, whose rows belong to a parent's row."""
    reached = f"EXISTS (SELECT FROM {parent} WHERE {parent}.id = {table}.{reference})"
    return [*_enable(table), f"CREATE POLICY org_wall ON {table} USING ({reached})"]


def open_for_platform_rows(table: str, *, command: str) -> str:
    """The statement that opens a table's rows of no org (the platform's) to every transaction, for one command or ALL."""
    clause = "WITH CHECK" if command == "INSERT" else "USING"
    return f"CREATE POLICY platform_rows ON {table} FOR {command} {clause} (org_id IS NULL)"


def remove_wall(table: str) -> list[str]:
    """The statements that undo `build_wall`."""
    return [
        f"DROP POLICY IF EXISTS platform_rows ON {table}",
        f"DROP POLICY org_wall ON {table}",
        f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY",
        f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY",
    ]


def _enable(table: str) -> list[str]:
    # FORCE: the role that a service connects as owns its tables, and an owner would pass otherwise.
    return [f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY", f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY"]

"""Alembic runs this; the connection was opened by `ias.kit.migrations`."""

from alembic import context

from ias.kit.migrations import run_in_alembic

run_in_alembic(context.config.attributes["connection"])

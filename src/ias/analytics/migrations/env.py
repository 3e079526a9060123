"""Alembic's entry: the connection is the one that `ias.kit.migrations` opened."""

from alembic import context

from ias.kit.migrations import run_in_alembic

run_in_alembic(context.config.attributes["connection"])

"""Database migrations: each service keeps its Alembic versions under `ias.<service>.migrations` and they run at start."""

import asyncio
from importlib.resources import files

from alembic import command, op
from alembic.config import Config
from sqlalchemy import Column, Connection, DateTime, LargeBinary, Text, pool
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from ias.kit.row_security import EVERY_ORG, SETTING

_LOCK_ID = 0x1A5_0001
"""Advisory lock so that two starting processes migrate one after the other."""


def migrate(service: str, database_url: str, *, revision: str = "head") -> None:
    """Bring a service's database to a revision (`head` forward, an id or `base` back). Safe to run at the same time."""
    asyncio.run(_migrate(service, database_url, revision))


async def _migrate(service: str, database_url: str, revision: str) -> None:
    url = make_url(database_url).set(drivername="postgresql+asyncpg")
    engine = create_async_engine(url, poolclass=pool.NullPool, connect_args={"timeout": 10})
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_run, service, revision)
            await connection.commit()
    finally:
        await engine.dispose()


def _run(connection: Connection, service: str, revision: str) -> None:
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK_ID})")
    # A migration that moves data moves every org's.
    connection.exec_driver_sql(f"SELECT set_config('{SETTING}', '{EVERY_ORG}', true)")
    config = Config()
    config.set_main_option("script_location", str(files(f"ias.{service}") / "migrations"))
    config.attributes["connection"] = connection
    if revision == "base":
        command.downgrade(config, revision)
    else:
        command.upgrade(config, revision)


def create_idempotency_keys() -> None:
    """The table of `kit.idempotency`, for a service's migration."""
    op.create_table(
        "idempotency_keys",
        Column("digest", LargeBinary, primary_key=True),
        Column("fingerprint", LargeBinary, nullable=False),
        Column("sealed_answer", Text, nullable=False),
        Column("expires_at", DateTime(timezone=True), nullable=False),
    )
    op.create_index("idempotency_keys_expires_at", "idempotency_keys", ["expires_at"])


def run_in_alembic(connection: Connection) -> None:
    """What each service's `migrations/env.py` calls: run the chosen versions on the connection that `migrate` opened."""
    from alembic import context  # noqa: PLC0415  # the proxy exists only while Alembic runs env.py

    context.configure(connection=connection, transaction_per_migration=False)
    with context.begin_transaction():
        context.run_migrations()

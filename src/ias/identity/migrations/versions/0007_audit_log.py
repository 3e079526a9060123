"""Audit entries that say what was denied, by which service and client; canonical hashes; checkpoints; nothing is rewritten.

Revision ID: 0007_audit_log
"""

import hashlib
from datetime import UTC, datetime
from typing import Any

import rfc8785
import sqlalchemy as sa
from alembic import op

revision = "0007_audit_log"
down_revision = "0006_lifecycles"
branch_labels = None
depends_on = None

_INDEXED = ("actor_id", "target_id", "request_id")


def upgrade() -> None:
    for column in (
        sa.Column("service", sa.Text(), server_default=sa.text("'identity'"), nullable=False),
        sa.Column("outcome", sa.Text(), server_default=sa.text("'done'"), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("count", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("user_agent", sa.Text(), nullable=True),
    ):
        op.add_column("audit_log", column)
    for name in ("service", "outcome", "count"):
        op.alter_column("audit_log", name, server_default=None)
    op.create_check_constraint(op.f("ck_audit_log_outcome"), "audit_log", "outcome IN ('done', 'denied')")
    op.create_check_constraint(op.f("ck_audit_log_count"), "audit_log", "count >= 1")
    # The log outlives the org: a purge removes the org's row and leaves what was done.
    op.drop_constraint(op.f("fk_audit_log_org_id"), "audit_log", type_="foreignkey")
    op.drop_index(op.f("ix_audit_log_org_id_id"), "audit_log")
    op.create_index(op.f("ix_audit_log_chain_id_id"), "audit_log", ["chain_id", "id"])
    for name in _INDEXED:
        op.create_index(op.f(f"ix_audit_log_chain_id_{name}_id"), "audit_log", ["chain_id", name, "id"])
    op.create_table(
        "audit_checkpoints",
        sa.Column("chain_id", sa.Uuid(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("signed", sa.Text(), nullable=False, comment="JWS over the chain's id, sequence and hash."),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["chain_id"], ["audit_chains.id"], name=op.f("fk_audit_checkpoints_chain_id")),
        sa.PrimaryKeyConstraint("chain_id", "sequence", name=op.f("pk_audit_checkpoints")),
    )
    _hash_again(op.get_bind())
    _refuse_rewriting()


def downgrade() -> None:
    for table in ("audit_log", "audit_checkpoints", "audit_chains"):
        op.execute(f"DROP TRIGGER {table}_append_only ON {table}")
    op.execute("DROP TRIGGER audit_chains_forward ON audit_chains")
    op.execute("DROP FUNCTION refuse_to_rewrite_audit_log()")
    op.execute("DROP FUNCTION refuse_to_shorten_audit_chain()")
    op.drop_table("audit_checkpoints")
    for name in _INDEXED:
        op.drop_index(op.f(f"ix_audit_log_chain_id_{name}_id"), "audit_log")
    op.drop_index(op.f("ix_audit_log_chain_id_id"), "audit_log")
    op.create_index(op.f("ix_audit_log_org_id_id"), "audit_log", ["org_id", "id"])
    op.create_foreign_key(op.f("fk_audit_log_org_id"), "audit_log", "orgs", ["org_id"], ["id"])
    for name in ("service", "outcome", "reason", "count", "user_agent"):
        op.drop_column("audit_log", name)


def _refuse_rewriting() -> None:
    op.execute(
        """
        CREATE FUNCTION refuse_to_rewrite_audit_log() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'the audit log is append-only';
        END $$
        """
    )
    for table, events in (
        ("audit_log", "UPDATE OR DELETE OR TRUNCATE"),
        ("audit_checkpoints", "UPDATE OR DELETE OR TRUNCATE"),
        ("audit_chains", "DELETE OR TRUNCATE"),
    ):
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE {events} ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_rewrite_audit_log()"
        )
    op.execute(
        """
        CREATE FUNCTION refuse_to_shorten_audit_chain() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.id <> OLD.id OR NEW.sequence <= OLD.sequence THEN
                RAISE EXCEPTION 'an audit chain only grows';
            END IF;
            RETURN NEW;
        END $$
        """
    )
    op.execute(
        "CREATE TRIGGER audit_chains_forward BEFORE UPDATE ON audit_chains"
        " FOR EACH ROW EXECUTE FUNCTION refuse_to_shorten_audit_chain()"
    )


def _hash_again(connection: sa.Connection) -> None:
    """Chains of before the first release were hashed without the new fields: they get the hashes that are checked from now on."""
    metadata = sa.MetaData()
    log = sa.Table("audit_log", metadata, autoload_with=connection)
    chains = sa.Table("audit_chains", metadata, autoload_with=connection)
    for chain_id in connection.scalars(sa.select(chains.c.id)).all():
        previous = "0" * 64
        query = sa.select(log).where(log.c.chain_id == chain_id).order_by(log.c.sequence)
        for row in connection.execute(query).mappings().all():
            entry = {name: _plain(value) for name, value in row.items() if name != "hash"} | {"previous_hash": previous}
            digest = hashlib.sha256(rfc8785.dumps(entry)).hexdigest()
            changed = sa.update(log).where(log.c.id == row["id"])
            connection.execute(changed.values(previous_hash=previous, hash=digest))
            previous = digest
        connection.execute(sa.update(chains).where(chains.c.id == chain_id).values(hash=previous))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return value if value is None or isinstance(value, int | str | dict) else str(value)

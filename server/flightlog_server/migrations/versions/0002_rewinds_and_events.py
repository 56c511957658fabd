"""Rewinds hide records, definitions say what becomes of metrics, alerts are events"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("writers") as batch_op:
        batch_op.add_column(sa.Column("hidden", sa.JSON(), nullable=False, server_default=sa.text("'[]'")))
    with op.batch_alter_table("runs") as batch_op:
        batch_op.add_column(sa.Column("preempting", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch_op.add_column(sa.Column("definitions", sa.JSON(), nullable=False, server_default=sa.text("'[]'")))
    op.create_table(
        "events",
        sa.Column("run_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("writer", sa.String(length=128), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("timestamp", sa.Float(precision=53), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_events_run_id_runs")),
        sa.PrimaryKeyConstraint("run_id", "writer", "seq", name=op.f("pk_events")),
    )

"""Runs that are no longer heard of are not alive any more"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    with op.batch_alter_table("runs") as batch_op:
        batch_op.add_column(
            sa.Column("alive_until", sa.Float(precision=53), nullable=False, server_default=sa.text("0"))
        )

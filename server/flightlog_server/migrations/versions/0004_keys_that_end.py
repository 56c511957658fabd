"""API keys can expire, and be for reading only"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    with op.batch_alter_table("api_keys") as batch_op:
        batch_op.add_column(sa.Column("expires_at", sa.Float(precision=53), nullable=True))
        batch_op.add_column(sa.Column("scope", sa.String(length=16), nullable=False, server_default="write"))
    with op.batch_alter_table("api_keys") as batch_op:
        batch_op.alter_column("scope", existing_type=sa.String(length=16), server_default=None)

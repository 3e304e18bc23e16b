"""The budget for pictures of newcomers."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Add its column."""
    with op.batch_alter_table("moderation_entries") as table:
        table.add_column(sa.Column("pictures", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Drop it."""
    with op.batch_alter_table("moderation_entries") as table:
        table.drop_column("pictures")

"""Incidents that share a card, and the restriction that a mute replaced."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_INDEX = "ix_moderation_incidents_lead"


def upgrade() -> None:
    """Add their columns."""
    with op.batch_alter_table("moderation_incidents") as table:
        table.add_column(sa.Column("lead_id", sa.BigInteger(), nullable=True))
        table.add_column(sa.Column("joined_at", sa.DateTime(timezone=True), nullable=True))
        table.add_column(sa.Column("restriction", sa.Text(), nullable=True))
        table.create_index(_INDEX, ["lead_id"])


def downgrade() -> None:
    """Drop them."""
    with op.batch_alter_table("moderation_incidents") as table:
        table.drop_index(_INDEX)
        for column in ("restriction", "joined_at", "lead_id"):
            table.drop_column(column)

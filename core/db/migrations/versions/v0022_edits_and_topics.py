"""The message that a turn answers, its edit, and topics that wait for a name."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    """Create the columns."""
    op.add_column("turns", sa.Column("question_id", sa.BigInteger(), nullable=True))
    op.add_column("turns", sa.Column("edited_prompt", sa.Text(), nullable=True))
    op.add_column("threads", sa.Column("names_topic", sa.Boolean(), nullable=True))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("threads", "names_topic")
    op.drop_column("turns", "edited_prompt")
    op.drop_column("turns", "question_id")

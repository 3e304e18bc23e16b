"""The memory of each thread: its start and its summary."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "thread_memories",
        sa.Column("thread_id", sa.BigInteger(), nullable=False),
        sa.Column("start_id", sa.BigInteger(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["thread_id"], ["threads.id"], name="fk_thread_memories_thread_id_threads", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("thread_id", name="pk_thread_memories"),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("thread_memories")

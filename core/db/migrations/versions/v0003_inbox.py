"""Durable inbox: crash counts, sent messages, album parts, dead letters."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

# Revisions do not import core.db.tables: they must not change when the tables do.
row_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
instant = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add `turns.origin` and the inbox tables."""
    with op.batch_alter_table("turns") as turns:
        turns.add_column(sa.Column("origin", sa.String(64), nullable=True))
        turns.create_index("uq_turns_origin", ["origin"], unique=True)
    op.create_table(
        "album_parts",
        sa.Column("chat_id", sa.BigInteger(), nullable=False),
        sa.Column("album", sa.String(64), nullable=False),
        sa.Column("message_id", sa.BigInteger(), nullable=False),
        sa.Column("update", sa.Text(), nullable=False),
        sa.Column("taken_by", sa.String(64), nullable=True),
        sa.Column("created_at", instant, nullable=False),
        sa.PrimaryKeyConstraint("chat_id", "album", "message_id", name="pk_album_parts"),
    )
    op.create_index("ix_album_parts_created_at", "album_parts", ["created_at"])
    op.create_table(
        "said",
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("chat_id", sa.BigInteger(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("message_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", instant, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "chat_id", "place", name="pk_said"),
    )
    op.create_index("ix_said_created_at", "said", ["created_at"])
    op.create_table(
        "job_attempts",
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("begun", sa.Integer(), nullable=False),
        sa.Column("alone", sa.Integer(), nullable=False),
        sa.Column("updated_at", instant, nullable=False),
        sa.PrimaryKeyConstraint("job_id", name="pk_job_attempts"),
    )
    op.create_index("ix_job_attempts_updated_at", "job_attempts", ["updated_at"])
    op.create_table(
        "dead_letters",
        sa.Column("id", row_id, nullable=False),
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("lane", sa.String(128), nullable=False),
        sa.Column("priority", sa.BigInteger(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("failed_at", instant, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_dead_letters"),
        sa.UniqueConstraint("job_id", name="uq_dead_letters_job_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_dead_letters_failed_at", "dead_letters", ["failed_at"])


def downgrade() -> None:
    """Drop them."""
    for table in ("dead_letters", "job_attempts", "said", "album_parts"):
        op.drop_table(table)
    with op.batch_alter_table("turns") as turns:
        turns.drop_index("uq_turns_origin")
        turns.drop_column("origin")

"""Conversations, notes, preferences, the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

# Revisions do not import core.db.tables: they must not change when the tables do.
row_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
instant = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create everything."""
    _create_conversations()
    op.create_table(
        "notes",
        sa.Column("id", row_id, nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("scope", sa.String(64), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created_at", instant, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_notes"),
    )
    op.create_index("ix_notes_user_id_scope", "notes", ["user_id", "scope"])
    op.create_table(
        "preferences",
        sa.Column("scope", sa.String(64), nullable=False),
        sa.Column("provider", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("footers", sa.Boolean(), nullable=True),
        sa.Column("remote_consent", sa.Boolean(), nullable=True),
        sa.Column("updated_at", instant, nullable=False),
        sa.PrimaryKeyConstraint("scope", name="pk_preferences"),
    )
    op.create_table(
        "audit",
        sa.Column("id", row_id, nullable=False),
        sa.Column("at", instant, nullable=False),
        sa.Column("actor_id", sa.BigInteger(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_index("ix_audit_at", "audit", ["at"])


def _create_conversations() -> None:
    op.create_table(
        "threads",
        sa.Column("id", row_id, nullable=False),
        sa.Column("surface", sa.String(32), nullable=False),
        sa.Column("chat_id", sa.BigInteger(), nullable=False),
        sa.Column("topic_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("is_current", sa.Boolean(), nullable=False),
        sa.Column("created_at", instant, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_threads"),
    )
    op.create_index("ix_threads_key", "threads", ["surface", "chat_id", "topic_id"])
    op.create_index(
        "uq_threads_current",
        "threads",
        ["surface", "chat_id", "topic_id"],
        unique=True,
        sqlite_where=sa.text("is_current"),
        postgresql_where=sa.text("is_current"),
    )
    op.create_table(
        "turns",
        sa.Column("id", row_id, nullable=False),
        sa.Column("thread_id", sa.BigInteger(), nullable=False),
        sa.Column("replaces_id", sa.BigInteger(), nullable=True),
        sa.Column("created_at", instant, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("speaker_id", sa.BigInteger(), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("messages", sa.Text(), nullable=True),
        sa.Column("estimated_tokens", sa.BigInteger(), nullable=False),
        sa.Column("attachment_count", sa.Integer(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("input_tokens", sa.BigInteger(), nullable=True),
        sa.Column("output_tokens", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["thread_id"], ["threads.id"], name="fk_turns_thread_id_threads", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_turns"),
    )
    op.create_index("ix_turns_thread_id_id", "turns", ["thread_id", "id"])
    op.create_index("ix_turns_speaker_id", "turns", ["speaker_id"])
    op.create_table(
        "attachments",
        sa.Column("turn_id", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["turn_id"], ["turns.id"], name="fk_attachments_turn_id_turns", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("turn_id", "digest", name="pk_attachments"),
    )
    op.create_table(
        "answer_messages",
        sa.Column("surface", sa.String(32), nullable=False),
        sa.Column("chat_id", sa.BigInteger(), nullable=False),
        sa.Column("message_id", sa.BigInteger(), nullable=False),
        sa.Column("turn_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["turn_id"], ["turns.id"], name="fk_answer_messages_turn_id_turns", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("surface", "chat_id", "message_id", name="pk_answer_messages"),
    )
    op.create_index("ix_answer_messages_turn_id", "answer_messages", ["turn_id"])


def downgrade() -> None:
    """Drop everything."""
    for table in ("audit", "preferences", "notes", "answer_messages", "attachments", "turns", "threads"):
        op.drop_table(table)

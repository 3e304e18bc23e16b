"""Schedules of users, and their time zones."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "schedules",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("surface", sa.String(32), nullable=False),
        sa.Column("chat_id", sa.BigInteger(), nullable=False),
        sa.Column("topic_id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("user_name", sa.Text(), nullable=False),
        sa.Column("language", sa.Text(), nullable=True),
        sa.Column("chat_kind", sa.String(16), nullable=False),
        sa.Column("chat_title", sa.Text(), nullable=True),
        sa.Column("zone", sa.String(64), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("is_prompt", sa.Boolean(), nullable=False),
        sa.Column("rule", sa.String(64), nullable=True),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("is_paused", sa.Boolean(), nullable=False),
        sa.Column("origin", sa.String(128), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_schedules"),
        sa.UniqueConstraint("origin", name="uq_schedules_origin"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_schedules_due", "schedules", ["is_paused", "next_at"])
    op.create_index("ix_schedules_user_id", "schedules", ["user_id"])
    op.create_table(
        "user_zones",
        sa.Column("user", sa.String(64), nullable=False),
        sa.Column("zone", sa.String(64), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("user", name="pk_user_zones"),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("user_zones")
    op.drop_table("schedules")

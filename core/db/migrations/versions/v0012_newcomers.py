"""Join gates, raids, people who joined, and the authors of processed messages."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Create their tables and the column of authors."""
    op.create_table(
        "moderation_entries",
        sa.Column("group_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("gate", sa.String(8), nullable=False),
        sa.Column("raid_rate", sa.Integer(), nullable=False),
        sa.Column("cleanup", sa.Boolean(), nullable=False),
        sa.Column("joins_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("raid_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("raid_joins", sa.Integer(), nullable=False),
        sa.Column("card_chat_id", sa.BigInteger(), nullable=True),
        sa.Column("card_message_id", sa.BigInteger(), nullable=True),
        sa.Column("notice_id", sa.BigInteger(), nullable=True),
        sa.Column("noticed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("group_id", name="pk_moderation_entries"),
    )
    op.create_table(
        "moderation_newcomers",
        sa.Column("group_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("member_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("trust", sa.String(8), nullable=False),
        sa.Column("passage", sa.String(12), nullable=False),
        sa.Column("joined_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("answer", sa.Integer(), nullable=True),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("group_id", "member_id", name="pk_moderation_newcomers"),
    )
    op.create_index("ix_moderation_newcomers_joined", "moderation_newcomers", ["group_id", "joined_at"])
    with op.batch_alter_table("moderation_messages") as table:
        table.add_column(sa.Column("author_id", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """Drop them."""
    with op.batch_alter_table("moderation_messages") as table:
        table.drop_column("author_id")
    op.drop_table("moderation_newcomers")
    op.drop_table("moderation_entries")

"""Moderation: groups, members, processed messages, incidents, warnings, reports, pending messages, daily counts."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

row_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
instant = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create everything."""
    _create_groups()
    _create_incidents()
    _create_messages()


def _create_groups() -> None:
    op.create_table(
        "moderation_groups",
        sa.Column("group_id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("mode", sa.String(8), nullable=False),
        sa.Column("preset", sa.String(8), nullable=False),
        sa.Column("language", sa.String(16), nullable=False),
        sa.Column("ban_allowed", sa.Boolean(), nullable=False),
        sa.Column("remote", sa.Boolean(), nullable=False),
        sa.Column("cards_to", sa.BigInteger(), nullable=True),
        sa.Column("rules", sa.Text(), nullable=False),
        sa.Column("house_rules", sa.Text(), nullable=False),
        sa.Column("budget", sa.Integer(), nullable=False),
        sa.Column("report_threshold", sa.Integer(), nullable=False),
        sa.Column("updated_at", instant, nullable=False),
        sa.PrimaryKeyConstraint("group_id", name="pk_moderation_groups"),
    )
    op.create_table(
        "moderation_members",
        sa.Column("group_id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("member_id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("first_seen", instant, nullable=False),
        sa.Column("meaningful", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("group_id", "member_id", name="pk_moderation_members"),
    )
    op.create_table(
        "moderation_days",
        sa.Column("group_id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("seen", sa.Integer(), nullable=False),
        sa.Column("judged", sa.Integer(), nullable=False),
        sa.Column("asked", sa.Integer(), nullable=False),
        sa.Column("acted", sa.Integer(), nullable=False),
        sa.Column("carded", sa.Integer(), nullable=False),
        sa.Column("undone", sa.Integer(), nullable=False),
        sa.Column("unjudged", sa.Integer(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("group_id", "day", name="pk_moderation_days"),
    )
    op.create_table(
        "moderation_warnings",
        sa.Column("id", row_id, nullable=False),
        sa.Column("group_id", sa.BigInteger(), nullable=False),
        sa.Column("member_id", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.String(48), nullable=False),
        sa.Column("at", instant, nullable=False),
        sa.UniqueConstraint("group_id", "source", name="uq_moderation_warnings_source"),
        sa.PrimaryKeyConstraint("id", name="pk_moderation_warnings"),
    )
    op.create_index("ix_moderation_warnings_member", "moderation_warnings", ["group_id", "member_id", "at"])
    op.create_table(
        "moderation_reports",
        sa.Column("group_id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("message_id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("reporter_id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("at", instant, nullable=False),
        sa.PrimaryKeyConstraint("group_id", "message_id", "reporter_id", name="pk_moderation_reports"),
    )
    op.create_index("ix_moderation_reports_reporter", "moderation_reports", ["group_id", "reporter_id", "at"])


def _create_incidents() -> None:
    op.create_table(
        "moderation_incidents",
        sa.Column("id", row_id, nullable=False),
        sa.Column("group_id", sa.BigInteger(), nullable=False),
        sa.Column("message_id", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.String(48), nullable=False),
        sa.Column("message_ids", sa.Text(), nullable=False),
        sa.Column("topic_id", sa.BigInteger(), nullable=False),
        sa.Column("author_id", sa.BigInteger(), nullable=False),
        sa.Column("author_kind", sa.String(8), nullable=False),
        sa.Column("author_name", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("category", sa.String(16), nullable=False),
        sa.Column("confidence", sa.Integer(), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=True),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=True),
        sa.Column("features", sa.Text(), nullable=False),
        sa.Column("deletes", sa.Boolean(), nullable=False),
        sa.Column("sanction", sa.String(8), nullable=False),
        sa.Column("until", instant, nullable=True),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        sa.Column("created_at", instant, nullable=False),
        sa.Column("lease_until", instant, nullable=True),
        sa.Column("sanctioned", sa.String(16), nullable=True),
        sa.Column("deleted", sa.String(16), nullable=True),
        sa.Column("card_chat_id", sa.BigInteger(), nullable=True),
        sa.Column("card_message_id", sa.BigInteger(), nullable=True),
        sa.Column("finished_at", instant, nullable=True),
        sa.Column("confirmed_by", sa.Text(), nullable=True),
        sa.Column("banned_by", sa.Text(), nullable=True),
        sa.Column("undone_by", sa.Text(), nullable=True),
        sa.UniqueConstraint("group_id", "message_id", "version", name="uq_moderation_incidents_message"),
        sa.PrimaryKeyConstraint("id", name="pk_moderation_incidents"),
    )
    op.create_index("ix_moderation_incidents_card", "moderation_incidents", ["card_chat_id", "card_message_id"])
    op.create_index("ix_moderation_incidents_created_at", "moderation_incidents", ["created_at"])
    op.create_index("ix_moderation_incidents_finished_at", "moderation_incidents", ["finished_at"])


def _create_messages() -> None:
    op.create_table(
        "moderation_messages",
        sa.Column("group_id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("message_id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("version", sa.String(48), nullable=False),
        sa.Column("album", sa.String(64), nullable=True),
        sa.Column("links", sa.Text(), nullable=False),
        sa.Column("seen_at", instant, nullable=False),
        sa.Column("settled", sa.Boolean(), nullable=False),
        sa.Column("removed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("group_id", "message_id", "version", name="pk_moderation_messages"),
    )
    op.create_index("ix_moderation_messages_album", "moderation_messages", ["group_id", "album"])
    op.create_index("ix_moderation_messages_seen_at", "moderation_messages", ["seen_at"])
    op.create_table(
        "moderation_pending",
        sa.Column("group_id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("message_id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("version", sa.String(48), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("since", instant, nullable=False),
        sa.Column("due_at", instant, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("group_id", "message_id", "version", name="pk_moderation_pending"),
    )
    op.create_index("ix_moderation_pending_due_at", "moderation_pending", ["due_at"])


def downgrade() -> None:
    """Drop everything."""
    for table in (
        "moderation_days",
        "moderation_groups",
        "moderation_incidents",
        "moderation_members",
        "moderation_messages",
        "moderation_pending",
        "moderation_reports",
        "moderation_warnings",
    ):
        op.drop_table(table)

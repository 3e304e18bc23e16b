"""Budgets: limits, days, holds, and the key of pseudonyms."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Create their tables."""
    row_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "secret_keys",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_secret_keys"),
    )
    op.create_table(
        "budget_limits",
        sa.Column("scope", sa.String(128), nullable=False),
        sa.Column("label", sa.Text(), nullable=True),
        sa.Column("limit_nanousd", sa.BigInteger(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("scope", name="pk_budget_limits"),
    )
    op.create_table(
        "budget_days",
        sa.Column("scope", sa.String(128), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "day", name="pk_budget_days"),
    )
    op.create_table(
        "budget_holds",
        sa.Column("id", row_id, nullable=False),
        sa.Column("request", sa.String(64), nullable=False),
        sa.Column("scope", sa.String(128), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("is_given_back", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_budget_holds"),
    )
    op.create_index("ix_budget_holds_request", "budget_holds", ["request"])
    op.create_index("ix_budget_holds_expires_at", "budget_holds", ["expires_at"])


def downgrade() -> None:
    """Drop them."""
    for table in ("budget_holds", "budget_days", "budget_limits", "secret_keys"):
        op.drop_table(table)

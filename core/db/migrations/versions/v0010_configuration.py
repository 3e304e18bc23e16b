"""Providers and budgets that operators set at run time."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Create the tables of revisions and values."""
    op.create_table(
        "config_revisions",
        sa.Column(
            "revision", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor_id", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("revision", name="pk_config_revisions"),
    )
    op.create_table(
        "config_values",
        sa.Column("revision", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=True),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(
            ["revision"],
            ["config_revisions.revision"],
            name="fk_config_values_revision_config_revisions",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("revision", "name", name="pk_config_values"),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("config_values")
    op.drop_table("config_revisions")

"""Dimensions of embedding spaces."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Create their table."""
    op.create_table(
        "embedding_spaces",
        sa.Column("model", sa.String(256), nullable=False),
        sa.Column("dimensions", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("model", name="pk_embedding_spaces"),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("embedding_spaces")

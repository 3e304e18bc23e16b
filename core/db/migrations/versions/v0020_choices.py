"""Choices of people and chats: language, persona, streaming, voice replies."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Create the table and the columns."""
    op.create_table(
        "languages",
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("language", sa.String(16), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("owner", name="pk_languages"),
    )
    op.create_index("ix_languages_updated_at", "languages", ["updated_at"])
    op.add_column("preferences", sa.Column("stream_mode", sa.String(8), nullable=True))
    op.add_column("preferences", sa.Column("voice_replies", sa.String(16), nullable=True))
    op.add_column("preferences", sa.Column("persona", sa.Text(), nullable=True))
    op.add_column("threads", sa.Column("persona", sa.Text(), nullable=True))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("threads", "persona")
    for column in ("persona", "voice_replies", "stream_mode"):
        op.drop_column("preferences", column)
    op.drop_index("ix_languages_updated_at", table_name="languages")
    op.drop_table("languages")

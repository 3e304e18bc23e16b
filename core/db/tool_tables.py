"""Tables of acting tools: their calls and the users' permissions, the same on SQLite and PostgreSQL."""

from datetime import datetime

from sqlalchemy import BigInteger, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from core.db.tables import Base, PlainText, RowId, UtcDateTime


class ToolCallRow(Base):
    """A call of a tool that acts: asked for, decided, carried out once. `arguments` is JSON."""

    __tablename__ = "tool_calls"
    # Without it SQLite reuses ids, and a button under an old message would allow another call.
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    key: Mapped[str] = mapped_column(String(128), unique=True)
    """The job, the tool and its arguments: a repeated job finds its call."""
    origin: Mapped[str] = mapped_column(String(64), index=True)
    surface: Mapped[str] = mapped_column(String(32))
    chat_id: Mapped[int] = mapped_column(BigInteger)
    topic_id: Mapped[int] = mapped_column(BigInteger)
    user_id: Mapped[int] = mapped_column(BigInteger)
    server: Mapped[str] = mapped_column(String(32))
    tool: Mapped[str] = mapped_column(PlainText)
    arguments: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(16))
    result: Mapped[str | None] = mapped_column(PlainText)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class ToolGrantRow(Base):
    """A tool that a user has allowed for good."""

    __tablename__ = "tool_grants"

    user: Mapped[str] = mapped_column(String(64), primary_key=True)
    server: Mapped[str] = mapped_column(String(32), primary_key=True)
    tool: Mapped[str] = mapped_column(String(256), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)

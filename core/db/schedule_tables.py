"""Tables of schedules, the same on SQLite and PostgreSQL."""

from datetime import datetime

from sqlalchemy import BigInteger, Boolean, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from core.db.tables import Base, PlainText, RowId, UtcDateTime


class ScheduleRow(Base):
    """A reminder or a scheduled prompt of a user in a chat. `rule` is its recurrence; NULL: it is due once.

    `zone` is empty where the bot's own time zone holds.
    """

    __tablename__ = "schedules"
    __table_args__ = (
        Index("ix_schedules_due", "is_paused", "next_at"),
        Index("ix_schedules_user_id", "user_id"),
        # Without it SQLite reuses ids, and a button under an old list would cancel another entry.
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    surface: Mapped[str] = mapped_column(String(32))
    chat_id: Mapped[int] = mapped_column(BigInteger)
    topic_id: Mapped[int] = mapped_column(BigInteger)
    user_id: Mapped[int] = mapped_column(BigInteger)
    user_name: Mapped[str] = mapped_column(PlainText)
    language: Mapped[str | None] = mapped_column(PlainText)
    chat_kind: Mapped[str] = mapped_column(String(16))
    chat_title: Mapped[str | None] = mapped_column(PlainText)
    zone: Mapped[str] = mapped_column(String(64))
    text: Mapped[str] = mapped_column(PlainText)
    is_prompt: Mapped[bool] = mapped_column(Boolean)
    rule: Mapped[str | None] = mapped_column(String(64))
    next_at: Mapped[datetime] = mapped_column(UtcDateTime)
    is_paused: Mapped[bool] = mapped_column(Boolean)
    origin: Mapped[str | None] = mapped_column(String(128), unique=True)
    """The job and the call that made it, so that a retried job makes it once."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class UserZoneRow(Base):
    """The time zone that a user chose, an IANA name."""

    __tablename__ = "user_zones"

    user: Mapped[str] = mapped_column(String(64), primary_key=True)
    zone: Mapped[str] = mapped_column(String(64))
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)

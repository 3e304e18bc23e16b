"""Tables of jobs: the inbox with its replicas and sends, schedules that become jobs, and calls of acting tools."""

from datetime import datetime

from sqlalchemy import BigInteger, Boolean, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from core.db.tables import Base, PlainText, RowId, UtcDateTime


class ReplicaRow(Base):
    """Lease of a process that shares the inbox, PostgreSQL only. Its unique name is the fencing token.

    The row exists from the registration of the replica until it ends or is replaced; `expires_at` is by the clock of
    the database.
    """

    __tablename__ = "replicas"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)


class PendingSendRow(Base):
    """A page of an answer that is being sent; see `services/inbox/sent_messages.py`. PostgreSQL only."""

    __tablename__ = "pending_sends"

    turn_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("turns.id", ondelete="CASCADE"), primary_key=True)
    page: Mapped[int] = mapped_column(Integer, primary_key=True)
    floor: Mapped[int] = mapped_column(BigInteger)
    shared_floor: Mapped[int] = mapped_column(BigInteger)
    message_id: Mapped[int | None] = mapped_column(BigInteger)


class AlbumPartRow(Base):
    """One message of an album, which Telegram delivers part by part. `taken_by` is the job that handles it."""

    __tablename__ = "album_parts"

    chat_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    album: Mapped[str] = mapped_column(String(64), primary_key=True)
    message_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    update: Mapped[str] = mapped_column(Text)
    taken_by: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class SentMessageRow(Base):
    """A message sent by a job, so that a retry does not send it again. `place` is its sequence number in the chat."""

    __tablename__ = "said"

    job_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    chat_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    place: Mapped[int] = mapped_column(Integer, primary_key=True)
    message_id: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class CrashCountRow(Base):
    """Restarts of a job that did not finish; `alone` counts the restarts in isolation."""

    __tablename__ = "job_attempts"

    job_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    begun: Mapped[int] = mapped_column(Integer)
    alone: Mapped[int] = mapped_column(Integer)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class DeadLetterRow(Base):
    """A job that exhausted its retries, kept for an admin."""

    __tablename__ = "dead_letters"
    # Without it SQLite reuses ids, and a button under an old list would drop another letter.
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    job_id: Mapped[str] = mapped_column(String(64), unique=True)
    lane: Mapped[str] = mapped_column(String(128))
    priority: Mapped[int] = mapped_column(BigInteger)
    payload: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(PlainText)
    failed_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


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

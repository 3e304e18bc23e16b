"""Tables of the inbox: replicas, sends in progress, parts of albums, messages of jobs, crashes, dead letters."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Integer, String, Text
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
    """A page of an answer that is being sent; see `services/inbox/send_journal.py`. PostgreSQL only."""

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

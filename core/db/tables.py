"""The tables of the database, the same on SQLite and PostgreSQL.

Every change here needs a revision in `core/db/migrations/versions`; a test compares the two.
"""

from datetime import UTC, date, datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

# SQLite numbers rows by itself only where the key is an INTEGER, which holds 64 bits there.
RowId = BigInteger().with_variant(Integer(), "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware instant in UTC, also on SQLite, which keeps no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the driver the instant in UTC; a naive one is a mistake of the caller."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a stored instant needs a zone")
        in_utc = value.astimezone(UTC)
        return in_utc.replace(tzinfo=None) if dialect.name == "sqlite" else in_utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give back an aware instant in UTC."""
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class PlainText(TypeDecorator[str]):
    """Text from outside, without what a database refuses: NUL (PostgreSQL) and lone surrogates (both)."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Drop NUL; join surrogate pairs, replace lone ones."""
        del dialect
        return None if value is None else storable(value)


def storable(text: str) -> str:
    """The text as both engines take it: no NUL, no lone surrogates (a pair of them becomes its character)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text.replace("\x00", "")


class Base(DeclarativeBase):
    """The tables' common root; constraints have names, so that a later migration can speak of them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class ThreadRow(Base):
    """A conversation. Of the threads of one key, exactly one is current: where the next message goes."""

    __tablename__ = "threads"
    __table_args__ = (
        Index("ix_threads_key", "surface", "chat_id", "topic_id"),
        Index(
            "uq_threads_current",
            "surface",
            "chat_id",
            "topic_id",
            unique=True,
            sqlite_where=text("is_current"),
            postgresql_where=text("is_current"),
        ),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    surface: Mapped[str] = mapped_column(String(32))
    chat_id: Mapped[int] = mapped_column(BigInteger)
    topic_id: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str | None] = mapped_column(PlainText)
    is_current: Mapped[bool] = mapped_column(Boolean)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class TurnRow(Base):
    """One prompt and what became of it. `prompt` and `messages` are pydantic-ai messages as JSON.

    JSON is kept as text: it is validated from its bytes in one pass, and PostgreSQL's `jsonb` refuses
    the escaped NUL that a tool's result may hold.
    """

    __tablename__ = "turns"
    __table_args__ = (
        Index("ix_turns_thread_id_id", "thread_id", "id"),
        Index("uq_turns_origin", "origin", unique=True),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    thread_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("threads.id", ondelete="CASCADE"))
    replaces_id: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    status: Mapped[str] = mapped_column(String(16))
    speaker_id: Mapped[int] = mapped_column(BigInteger, index=True)
    prompt: Mapped[str] = mapped_column(Text)
    messages: Mapped[str | None] = mapped_column(Text)
    estimated_tokens: Mapped[int] = mapped_column(BigInteger)
    attachment_count: Mapped[int] = mapped_column(Integer)
    provider: Mapped[str | None] = mapped_column(PlainText)
    model: Mapped[str | None] = mapped_column(PlainText)
    input_tokens: Mapped[int | None] = mapped_column(BigInteger)
    output_tokens: Mapped[int | None] = mapped_column(BigInteger)
    origin: Mapped[str | None] = mapped_column(String(64))
    """The job of the inbox that this turn answers: done again, it finds what it had begun. NULL where there is none."""


class AttachmentRow(Base):
    """The bytes of a file that came with a turn, beside the JSON, so that old ones are not read with it."""

    __tablename__ = "attachments"

    turn_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("turns.id", ondelete="CASCADE"), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    media_type: Mapped[str] = mapped_column(PlainText)
    data: Mapped[bytes] = mapped_column(LargeBinary)


class AnswerMessageRow(Base):
    """Which turn a message of ours on a surface belongs to."""

    __tablename__ = "answer_messages"

    surface: Mapped[str] = mapped_column(String(32), primary_key=True)
    chat_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    message_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    turn_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("turns.id", ondelete="CASCADE"), index=True)


class NoteRow(Base):
    """Something a user asked to remember, in the chat where it was said."""

    __tablename__ = "notes"
    __table_args__ = (Index("ix_notes_user_id_scope", "user_id", "scope"),)

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    user_id: Mapped[int] = mapped_column(BigInteger)
    scope: Mapped[str] = mapped_column(String(64))
    text: Mapped[str] = mapped_column(PlainText)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class PreferenceRow(Base):
    """What a chat chose: provider and model, footers, remote providers or not. NULL is "as the bot has it"."""

    __tablename__ = "preferences"

    scope: Mapped[str] = mapped_column(String(64), primary_key=True)
    provider: Mapped[str | None] = mapped_column(PlainText)
    model: Mapped[str | None] = mapped_column(PlainText)
    footers: Mapped[bool | None] = mapped_column(Boolean)
    remote_consent: Mapped[bool | None] = mapped_column(Boolean)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class AuditRow(Base):
    """An act of an admin. Rows are only ever added."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    actor_id: Mapped[int] = mapped_column(BigInteger)
    action: Mapped[str] = mapped_column(PlainText)
    target: Mapped[str | None] = mapped_column(PlainText)
    detail: Mapped[str | None] = mapped_column(PlainText)


class UsageRequestRow(Base):
    """A request to a provider and what it used; kept for some months. The sums of a day are in `usage_days`.

    Costs are whole billionths of a dollar, which both engines add up exactly. NULL is "nobody knows the price".
    """

    __tablename__ = "usage_requests"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    speaker: Mapped[str | None] = mapped_column(PlainText)
    chat: Mapped[str | None] = mapped_column(PlainText)
    provider: Mapped[str] = mapped_column(PlainText)
    model: Mapped[str] = mapped_column(PlainText)
    purpose: Mapped[str] = mapped_column(PlainText)
    end: Mapped[str] = mapped_column(String(16))
    is_answer: Mapped[bool] = mapped_column(Boolean)
    is_failure: Mapped[bool] = mapped_column(Boolean)
    is_estimated: Mapped[bool] = mapped_column(Boolean)
    input_tokens: Mapped[int] = mapped_column(BigInteger)
    output_tokens: Mapped[int] = mapped_column(BigInteger)
    cost_nanousd: Mapped[int | None] = mapped_column(BigInteger)


class UsageDayRow(Base):
    """What all requests of one kind used on a day (UTC). An empty `speaker` or `chat` is nobody's."""

    __tablename__ = "usage_days"
    __table_args__ = (
        Index("ix_usage_days_speaker_day", "speaker", "day"),
        Index("ix_usage_days_chat_day", "chat", "day"),
    )

    day: Mapped[date] = mapped_column(Date, primary_key=True)
    speaker: Mapped[str] = mapped_column(PlainText, primary_key=True)
    chat: Mapped[str] = mapped_column(PlainText, primary_key=True)
    provider: Mapped[str] = mapped_column(PlainText, primary_key=True)
    model: Mapped[str] = mapped_column(PlainText, primary_key=True)
    purpose: Mapped[str] = mapped_column(PlainText, primary_key=True)
    requests: Mapped[int] = mapped_column(BigInteger)
    answers: Mapped[int] = mapped_column(BigInteger)
    failures: Mapped[int] = mapped_column(BigInteger)
    estimated: Mapped[int] = mapped_column(BigInteger)
    """Requests whose tokens are an estimate."""
    unpriced: Mapped[int] = mapped_column(BigInteger)
    """Requests whose price nobody knows."""
    input_tokens: Mapped[int] = mapped_column(BigInteger)
    output_tokens: Mapped[int] = mapped_column(BigInteger)
    cost_nanousd: Mapped[int] = mapped_column(BigInteger)


class AlbumPartRow(Base):
    """A part of an album, which Telegram hands over one by one. `taken_by` is the job that answers it."""

    __tablename__ = "album_parts"

    chat_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    album: Mapped[str] = mapped_column(String(64), primary_key=True)
    message_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    update: Mapped[str] = mapped_column(Text)
    taken_by: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class SentMessageRow(Base):
    """A message that a job sent: done again, it does not send it twice. `place` counts its messages in the chat."""

    __tablename__ = "said"

    job_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    chat_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    place: Mapped[int] = mapped_column(Integer, primary_key=True)
    message_id: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class CrashCountRow(Base):
    """How often a job that was not finished was begun again, `alone` of these with no other such job beside it."""

    __tablename__ = "job_attempts"

    job_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    begun: Mapped[int] = mapped_column(Integer)
    alone: Mapped[int] = mapped_column(Integer)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class DeadLetterRow(Base):
    """A job that failed again and again, for an admin to look at; `payload` is what it was."""

    __tablename__ = "dead_letters"
    # SQLite would give a number once more, and a button under an old list would drop another letter.
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012 - read by SQLAlchemy, and never changed

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    job_id: Mapped[str] = mapped_column(String(64), unique=True)
    lane: Mapped[str] = mapped_column(String(128))
    priority: Mapped[int] = mapped_column(BigInteger)
    payload: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(PlainText)
    failed_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class SpamScoreRow(Base):
    """What the local score of a group learned, weights of hashed columns as a npz file; scope 0 is the common base."""

    __tablename__ = "local_scores"

    scope: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    revision: Mapped[str] = mapped_column(String(32))
    weights: Mapped[bytes] = mapped_column(LargeBinary)
    spam_count: Mapped[int] = mapped_column(Integer)
    ham_count: Mapped[int] = mapped_column(Integer)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)

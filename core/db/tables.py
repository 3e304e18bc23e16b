"""Types of all tables, the same on SQLite and PostgreSQL, and the tables of conversations and of people's choices.

Every change needs a revision in `core/db/migrations/versions`; a test compares the two.
"""

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
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

# SQLite assigns row ids only to a primary key declared INTEGER, which holds 64 bits there.
RowId = BigInteger().with_variant(Integer(), "sqlite")


class Base(DeclarativeBase):
    """Declarative base. Constraints are named, so that migrations can refer to them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class UtcDateTime(TypeDecorator[datetime]):
    """Timezone-aware datetime in UTC, also on SQLite, which stores no time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Converts to UTC.

        Raises:
            ValueError: the datetime is naive.
        """
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a stored datetime must be timezone-aware")
        in_utc = value.astimezone(UTC)
        return in_utc.replace(tzinfo=None) if dialect.name == "sqlite" else in_utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Returns an aware datetime in UTC."""
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class PlainText(TypeDecorator[str]):
    """Untrusted text without characters that a database rejects: NUL (PostgreSQL), lone surrogates (both engines)."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Drops NUL, joins surrogate pairs, replaces lone surrogates."""
        del dialect
        return None if value is None else storable(value)


def storable(text: str) -> str:
    """Returns text as both engines accept it: no NUL, no lone surrogates; a surrogate pair becomes its character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text.replace("\x00", "")


class ThreadRow(Base):
    """A conversation thread. Exactly one thread per (surface, chat, topic) is current: it receives the next message."""

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
    persona: Mapped[str | None] = mapped_column(PlainText)
    """NULL: the chat's own; see services/chat/personas.py."""
    names_topic: Mapped[bool | None] = mapped_column(Boolean)
    """True if its topic, in a private chat, takes the name of the thread."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ThreadMemoryRow(Base):
    """The memory of a thread: its turns from `start_id` on are sent whole, `summary` stands for those before."""

    __tablename__ = "thread_memories"

    thread_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("threads.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    start_id: Mapped[int] = mapped_column(BigInteger)
    summary: Mapped[str | None] = mapped_column(PlainText)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class TurnRow(Base):
    """A prompt and its outcome. `prompt` and `messages` hold pydantic-ai messages as JSON.

    JSON is stored as text: it is validated from its bytes in one pass, and PostgreSQL's `jsonb` rejects the escaped NUL
    that a tool result may contain.
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
    question_id: Mapped[int | None] = mapped_column(BigInteger)
    """The message with the prompt."""
    edited_prompt: Mapped[str | None] = mapped_column(Text)
    """The prompt as its author changed it afterwards."""
    origin: Mapped[str | None] = mapped_column(String(64))
    """Inbox job that produced this turn; a retried job resumes its own turn. NULL for turns without a job."""


class AttachmentRow(Base):
    """Content of a file sent with a turn, stored apart from the JSON so that reading history does not load it."""

    __tablename__ = "attachments"

    turn_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("turns.id", ondelete="CASCADE"), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    media_type: Mapped[str] = mapped_column(PlainText)
    data: Mapped[bytes] = mapped_column(LargeBinary)


class AnswerMessageRow(Base):
    """Maps a message sent by the bot to its turn."""

    __tablename__ = "answer_messages"

    surface: Mapped[str] = mapped_column(String(32), primary_key=True)
    chat_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    message_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    turn_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("turns.id", ondelete="CASCADE"), index=True)


class NoteRow(Base):
    """A note that a user asked the bot to remember, scoped to a chat."""

    __tablename__ = "notes"
    __table_args__ = (Index("ix_notes_user_id_scope", "user_id", "scope"),)

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    user_id: Mapped[int] = mapped_column(BigInteger)
    scope: Mapped[str] = mapped_column(String(64))
    text: Mapped[str] = mapped_column(PlainText)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class PreferenceRow(Base):
    """Preferences of a chat: model, footers, consent to remote providers, streaming, persona. NULL: the default."""

    __tablename__ = "preferences"

    scope: Mapped[str] = mapped_column(String(64), primary_key=True)
    provider: Mapped[str | None] = mapped_column(PlainText)
    model: Mapped[str | None] = mapped_column(PlainText)
    footers: Mapped[bool | None] = mapped_column(Boolean)
    remote_consent: Mapped[bool | None] = mapped_column(Boolean)
    stream_mode: Mapped[str | None] = mapped_column(String(8))
    voice_replies: Mapped[str | None] = mapped_column(String(16))
    persona: Mapped[str | None] = mapped_column(PlainText)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class LanguageRow(Base):
    """The language that a person or a chat chose, an IETF tag; NULL: as the client says, again."""

    __tablename__ = "languages"

    owner: Mapped[str] = mapped_column(String(64), primary_key=True)
    language: Mapped[str | None] = mapped_column(String(16))
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class ApiTokenRow(Base):
    """A token of another program: its hash and its own limits. Without a hash, the limits of a token of API_TOKENS."""

    __tablename__ = "api_tokens"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    digest: Mapped[str | None] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_by: Mapped[int] = mapped_column(BigInteger)
    models: Mapped[str | None] = mapped_column(PlainText)
    requests_per_minute: Mapped[int | None] = mapped_column(Integer)
    running: Mapped[int | None] = mapped_column(Integer)
    budget_day_nanousd: Mapped[int | None] = mapped_column(BigInteger)
    remote_consent: Mapped[bool | None] = mapped_column(Boolean)


class EmbeddingSpaceRow(Base):
    """Dimensions of a model's embeddings, by its first answer."""

    __tablename__ = "embedding_spaces"

    model: Mapped[str] = mapped_column(String(256), primary_key=True)
    dimensions: Mapped[int] = mapped_column(Integer)

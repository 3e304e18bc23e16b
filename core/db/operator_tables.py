"""Tables of operators: their acts, the configuration, people who are banned, broadcasts, and votes about models."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Integer, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from core.db.tables import Base, PlainText, RowId, UtcDateTime


class AuditRow(Base):
    """An admin action. Append-only."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    actor_id: Mapped[int] = mapped_column(BigInteger)
    action: Mapped[str] = mapped_column(PlainText)
    target: Mapped[str | None] = mapped_column(PlainText)
    detail: Mapped[str | None] = mapped_column(PlainText)


class ConfigRevisionRow(Base):
    """A change of the stored configuration. Two operators who change the same revision conflict on its successor."""

    __tablename__ = "config_revisions"

    revision: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    actor_id: Mapped[int] = mapped_column(BigInteger)
    note: Mapped[str] = mapped_column(PlainText)


class ConfigValueRow(Base):
    """A variable as a revision set it. The newest row of a name is in effect; one without a value resets it."""

    __tablename__ = "config_values"

    revision: Mapped[int] = mapped_column(ForeignKey("config_revisions.revision", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(PlainText, primary_key=True)
    value: Mapped[str | None] = mapped_column(PlainText)
    sealed: Mapped[bytes | None] = mapped_column(LargeBinary)


class BanRow(Base):
    """A person or a chat that the bot does not answer. `person` is a pseudonym; `label` is erased by /forget."""

    __tablename__ = "bans"

    person: Mapped[str] = mapped_column(String(64), primary_key=True)
    label: Mapped[str | None] = mapped_column(PlainText)
    reason: Mapped[str | None] = mapped_column(PlainText)
    banned_by: Mapped[int] = mapped_column(BigInteger)
    banned_at: Mapped[datetime] = mapped_column(UtcDateTime)


class BroadcastRow(Base):
    """A message of an operator to everyone who has a private chat with the bot.

    Chats are served in the order of their ids: `last_chat_id` is the last one that was served, so no list of recipients
    is stored. The replica `owner` sends it until `owned_until`.
    """

    __tablename__ = "broadcasts"
    # Without it SQLite reuses ids, and a button under an old card would act on another broadcast.
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    actor_id: Mapped[int] = mapped_column(BigInteger)
    text: Mapped[str] = mapped_column(PlainText)
    formatting: Mapped[str | None] = mapped_column(PlainText)
    """Of the surface that delivers it: entities as JSON."""
    state: Mapped[str] = mapped_column(String(16), index=True)
    total: Mapped[int] = mapped_column(Integer)
    sent: Mapped[int] = mapped_column(Integer)
    blocked: Mapped[int] = mapped_column(Integer)
    failed: Mapped[int] = mapped_column(Integer)
    last_chat_id: Mapped[int] = mapped_column(BigInteger)
    card_chat_id: Mapped[int | None] = mapped_column(BigInteger)
    card_message_id: Mapped[int | None] = mapped_column(BigInteger)
    language: Mapped[str | None] = mapped_column(String(35))
    owner: Mapped[str | None] = mapped_column(String(64))
    owned_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ComparisonRow(Base):
    """A comparison of two models, and the vote of its asker, who is a pseudonym. Models are `<provider>/<model>`."""

    __tablename__ = "comparisons"
    # Without it SQLite reuses ids, and a button under an old card would vote on another comparison.
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    origin: Mapped[str] = mapped_column(String(64), unique=True)
    """Job or request that asked, so that a repeated job opens none of its own."""
    asker: Mapped[str] = mapped_column(String(64))
    model_a: Mapped[str] = mapped_column(PlainText)
    model_b: Mapped[str] = mapped_column(PlainText)
    winner: Mapped[str | None] = mapped_column(String(4))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class AnswerVoteRow(Base):
    """A thumb under an answer. `ballot` is a pseudonym of its voter and the answer."""

    __tablename__ = "answer_votes"

    ballot: Mapped[str] = mapped_column(String(64), primary_key=True)
    model: Mapped[str] = mapped_column(PlainText)
    value: Mapped[int] = mapped_column(Integer)
    at: Mapped[datetime] = mapped_column(UtcDateTime)

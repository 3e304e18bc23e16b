"""Moderation tables: groups, members, processed messages, incidents, warnings, reports, pending messages, counts."""

from datetime import datetime

from sqlalchemy import BigInteger, Boolean, Index, Integer, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.db.tables import Base, PlainText, RowId, UtcDateTime


class ModerationGroupRow(Base):
    """Moderation settings of a group in which `/moderation on` was run at least once."""

    __tablename__ = "moderation_groups"

    group_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    mode: Mapped[str] = mapped_column(String(8))
    preset: Mapped[str] = mapped_column(String(8))
    language: Mapped[str] = mapped_column(String(16))
    ban_allowed: Mapped[bool] = mapped_column(Boolean)
    remote: Mapped[bool] = mapped_column(Boolean)
    cards_to: Mapped[int | None] = mapped_column(BigInteger)
    rules: Mapped[str] = mapped_column(Text)
    house_rules: Mapped[str] = mapped_column(PlainText)
    budget: Mapped[int] = mapped_column(Integer)
    report_threshold: Mapped[int] = mapped_column(Integer)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ModerationMemberRow(Base):
    """History of a member in a group."""

    __tablename__ = "moderation_members"

    group_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    member_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    first_seen: Mapped[datetime] = mapped_column(UtcDateTime)
    meaningful: Mapped[int] = mapped_column(Integer)


class ProcessedVersionRow(Base):
    """A processed version of a message, without its text; `links` are checksums of its link targets."""

    __tablename__ = "moderation_messages"
    __table_args__ = (Index("ix_moderation_messages_album", "group_id", "album"),)

    group_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    message_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    version: Mapped[str] = mapped_column(String(48), primary_key=True)
    album: Mapped[str | None] = mapped_column(String(64))
    author_id: Mapped[int | None] = mapped_column(BigInteger)
    links: Mapped[str] = mapped_column(Text)
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    settled: Mapped[bool] = mapped_column(Boolean)
    removed: Mapped[bool] = mapped_column(Boolean)


class ModerationIncidentRow(Base):
    """A finding, the action taken, and its review by an admin.

    `text` and `evidence` are erased after a week; the rest is kept for statistics. Incidents of one author or campaign
    share the card of the first, their `lead_id`; `joined_at` of the first is the time of the latest. `restriction` is
    the restriction that a mute or ban replaced, as JSON.
    """

    __tablename__ = "moderation_incidents"
    __table_args__ = (
        UniqueConstraint("group_id", "message_id", "version", name="uq_moderation_incidents_message"),
        Index("ix_moderation_incidents_card", "card_chat_id", "card_message_id"),
        Index("ix_moderation_incidents_lead", "lead_id"),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    group_id: Mapped[int] = mapped_column(BigInteger)
    message_id: Mapped[int] = mapped_column(BigInteger)
    version: Mapped[str] = mapped_column(String(48))
    message_ids: Mapped[str] = mapped_column(Text)
    topic_id: Mapped[int] = mapped_column(BigInteger)
    author_id: Mapped[int] = mapped_column(BigInteger)
    author_kind: Mapped[str] = mapped_column(String(8))
    author_name: Mapped[str] = mapped_column(PlainText)
    text: Mapped[str | None] = mapped_column(PlainText)
    category: Mapped[str] = mapped_column(String(16))
    confidence: Mapped[int] = mapped_column(Integer)
    evidence: Mapped[str | None] = mapped_column(PlainText)
    source: Mapped[str] = mapped_column(String(16))
    detail: Mapped[str] = mapped_column(PlainText)
    provider: Mapped[str | None] = mapped_column(PlainText)
    features: Mapped[str] = mapped_column(Text)
    deletes: Mapped[bool] = mapped_column(Boolean)
    sanction: Mapped[str] = mapped_column(String(8))
    until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    dry_run: Mapped[bool] = mapped_column(Boolean)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    sanctioned: Mapped[str | None] = mapped_column(String(16))
    deleted: Mapped[str | None] = mapped_column(String(16))
    card_chat_id: Mapped[int | None] = mapped_column(BigInteger)
    card_message_id: Mapped[int | None] = mapped_column(BigInteger)
    lead_id: Mapped[int | None] = mapped_column(BigInteger)
    joined_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    restriction: Mapped[str | None] = mapped_column(Text)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime, index=True)
    confirmed_by: Mapped[str | None] = mapped_column(PlainText)
    banned_by: Mapped[str | None] = mapped_column(PlainText)
    undone_by: Mapped[str | None] = mapped_column(PlainText)


class ModerationWarningRow(Base):
    """A warning of a member; `source` identifies its cause, so that one cause never warns twice."""

    __tablename__ = "moderation_warnings"
    __table_args__ = (
        UniqueConstraint("group_id", "source", name="uq_moderation_warnings_source"),
        Index("ix_moderation_warnings_member", "group_id", "member_id", "at"),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    group_id: Mapped[int] = mapped_column(BigInteger)
    member_id: Mapped[int] = mapped_column(BigInteger)
    source: Mapped[str] = mapped_column(String(48))
    at: Mapped[datetime] = mapped_column(UtcDateTime)


class ModerationReportRow(Base):
    """A report of a message by a member."""

    __tablename__ = "moderation_reports"
    __table_args__ = (Index("ix_moderation_reports_reporter", "group_id", "reporter_id", "at"),)

    group_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    message_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    reporter_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(UtcDateTime)


class ModerationPendingRow(Base):
    """A message awaiting judgement; `payload` is the message as JSON. The row is deleted once it is judged."""

    __tablename__ = "moderation_pending"

    group_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    message_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    version: Mapped[str] = mapped_column(String(48), primary_key=True)
    payload: Mapped[str] = mapped_column(Text)
    since: Mapped[datetime] = mapped_column(UtcDateTime)
    due_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    attempts: Mapped[int] = mapped_column(Integer)


class ModerationEntryRow(Base):
    """Join gate of a group, and its raid."""

    __tablename__ = "moderation_entries"

    group_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    gate: Mapped[str] = mapped_column(String(8))
    raid_rate: Mapped[int] = mapped_column(Integer)
    cleanup: Mapped[bool] = mapped_column(Boolean)
    joins_since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    raid_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    raid_joins: Mapped[int] = mapped_column(Integer)
    card_chat_id: Mapped[int | None] = mapped_column(BigInteger)
    card_message_id: Mapped[int | None] = mapped_column(BigInteger)
    notice_id: Mapped[int | None] = mapped_column(BigInteger)
    noticed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    pictures: Mapped[int | None] = mapped_column(Integer)


class ModerationNewcomerRow(Base):
    """A person who joined a group, or was in it before the bot; `answer` is that of the question they were asked."""

    __tablename__ = "moderation_newcomers"
    __table_args__ = (Index("ix_moderation_newcomers_joined", "group_id", "joined_at"),)

    group_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    member_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    trust: Mapped[str] = mapped_column(String(8))
    passage: Mapped[str] = mapped_column(String(12))
    joined_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    answer: Mapped[int | None] = mapped_column(Integer)
    asked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class ModerationCountsRow(Base):
    """Daily counts of a group (UTC), shown by `/moderation stats`."""

    __tablename__ = "moderation_days"

    group_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    day: Mapped[str] = mapped_column(String(10), primary_key=True)
    seen: Mapped[int] = mapped_column(Integer)
    judged: Mapped[int] = mapped_column(Integer)
    asked: Mapped[int] = mapped_column(Integer)
    acted: Mapped[int] = mapped_column(Integer)
    carded: Mapped[int] = mapped_column(Integer)
    undone: Mapped[int] = mapped_column(Integer)
    unjudged: Mapped[int] = mapped_column(Integer)
    input_tokens: Mapped[int] = mapped_column(BigInteger)
    output_tokens: Mapped[int] = mapped_column(BigInteger)


class SpamScoreRow(Base):
    """Learned spam-score weights of a group, as an npz file of hashed columns; scope 0 is the shared base model."""

    __tablename__ = "local_scores"

    scope: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    revision: Mapped[str] = mapped_column(String(32))
    weights: Mapped[bytes] = mapped_column(LargeBinary)
    spam_count: Mapped[int] = mapped_column(Integer)
    ham_count: Mapped[int] = mapped_column(Integer)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)

"""Tables of usage: requests and their daily sums, budgets, the figures and states of providers."""

from datetime import date, datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    Date,
    Index,
    Integer,
    LargeBinary,
    String,
)
from sqlalchemy.orm import Mapped, mapped_column

from core.db.tables import Base, PlainText, RowId, UtcDateTime


class UsageRequestRow(Base):
    """Usage of one provider request, kept for some months; daily totals are in `usage_days`.

    Costs are whole billionths of a dollar, which both engines add up exactly. NULL: the price is unknown.
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
    """Daily usage totals per user, chat, model and purpose. An empty `speaker` or `chat` means none."""

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
    """Requests with estimated token counts."""
    unpriced: Mapped[int] = mapped_column(BigInteger)
    """Requests without a known price."""
    input_tokens: Mapped[int] = mapped_column(BigInteger)
    output_tokens: Mapped[int] = mapped_column(BigInteger)
    cost_nanousd: Mapped[int] = mapped_column(BigInteger)


class BudgetLimitRow(Base):
    """A daily budget that an admin set for a user or a chat. `scope` is a pseudonym; `label` is erased by /forget."""

    __tablename__ = "budget_limits"

    scope: Mapped[str] = mapped_column(String(128), primary_key=True)
    label: Mapped[str | None] = mapped_column(PlainText)
    limit_nanousd: Mapped[int | None] = mapped_column(BigInteger)
    """NULL: no limit, even against the settings."""
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class BudgetDayRow(Base):
    """The spending of a day against one budget, in billionths of a dollar. `scope` is a pseudonym for people."""

    __tablename__ = "budget_days"

    scope: Mapped[str] = mapped_column(String(128), primary_key=True)
    day: Mapped[date] = mapped_column(Date, primary_key=True)
    spent: Mapped[int] = mapped_column(BigInteger)
    reserved: Mapped[int] = mapped_column(BigInteger)


class BudgetHoldRow(Base):
    """An amount that a request in flight holds of one budget; one row for each budget that the request counts in."""

    __tablename__ = "budget_holds"

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    request: Mapped[str] = mapped_column(String(64), index=True)
    scope: Mapped[str] = mapped_column(String(128))
    day: Mapped[date] = mapped_column(Date)
    amount: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    is_given_back: Mapped[bool] = mapped_column(Boolean)
    """Its process stopped extending it; if it settles after all, only its cost is added."""


class ProviderFigureRow(Base):
    """A sum over all replicas: `name` of one provider in the `step` seconds from `at` on, in seconds since the epoch.

    Names are in `services/history/figures.py`. A new figure needs no column, and every figure is thinned alike.
    """

    __tablename__ = "provider_figures"

    step: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    at: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    provider: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)


class ProviderSpanRow(Base):
    """A time in which a provider was in one state, in seconds since the epoch.

    `number` counts the spans of a provider: of two replicas that record the same change, one inserts it. `seen_at`
    moves on while a process runs, so that a standstill of all replicas is a gap.
    """

    __tablename__ = "provider_spans"

    provider: Mapped[str] = mapped_column(String(64), primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(PlainText)
    began_at: Mapped[int] = mapped_column(BigInteger)
    seen_at: Mapped[int] = mapped_column(BigInteger)


class SecretKeyRow(Base):
    """A random key that all replicas share; see `services/pseudonyms.py`."""

    __tablename__ = "secret_keys"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    value: Mapped[bytes] = mapped_column(LargeBinary)

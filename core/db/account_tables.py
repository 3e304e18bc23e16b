"""Tables of budgets: limits, sums of a day, amounts that are held, and the key under which people are named in them."""

from datetime import date, datetime

from sqlalchemy import BigInteger, Boolean, Date, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from core.db.tables import Base, PlainText, RowId, UtcDateTime


class SecretKeyRow(Base):
    """A random key that all replicas share; see `services/pseudonyms.py`."""

    __tablename__ = "secret_keys"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    value: Mapped[bytes] = mapped_column(LargeBinary)


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

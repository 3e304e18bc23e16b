"""Tables of the providers' history: figures in steps that grow with age, and the spans of their states."""

from sqlalchemy import BigInteger, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from core.db.tables import Base, PlainText


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

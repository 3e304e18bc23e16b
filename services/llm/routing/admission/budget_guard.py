"""The budgets of a request, as routing needs them: reserved before a call, settled by its use.

`services.budgets` keeps the amounts; routing only learns whether a candidate may be paid for.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from core.config.providers import ProviderSettings
from services.llm.request import RequestSpec
from services.llm.usage import RequestReport


class BudgetKind(StrEnum):
    """The owner of a budget."""

    USER = "user"
    CHAT = "chat"
    PROVIDER = "provider"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Quote:
    """The request that is to be paid for.

    Args:
        size: returns the estimated tokens of the request and the limit of the answer; not called where it is free.
    """

    provider: ProviderSettings
    model: str
    spec: RequestSpec
    size: Callable[[], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class BudgetRefusal:
    """The reason why a candidate is not asked.

    Args:
        renews_at: seconds since the epoch.
        is_temporary: only reservations of requests in flight are in the way; they may give back more than they use.
    """

    kind: BudgetKind
    renews_at: float
    is_temporary: bool


class Reservation(Protocol):
    """An amount that is held for one attempt, with its retries."""

    def add(self, report: RequestReport) -> None:
        """Adds the cost of one request of the attempt. Does not block."""
        ...

    def settle(self) -> None:
        """Replaces the reservation by the costs, in the background. Idempotent."""
        ...


class BudgetGuard(Protocol):
    """Reserves amounts of budgets.

    Args:
        is_empty: whether nothing is limited now, except by the settings of a provider.
    """

    is_empty: bool

    async def reserve(self, quote: Quote) -> "Reservation | BudgetRefusal | None":
        """Reserves the cost of a request in each budget that it counts in, or in none; None where it costs nothing."""
        ...

    async def wait(self) -> None:
        """Waits until a reservation may have been given back, for a fraction of a second at most."""
        ...


class NoBudgets:
    """Guards nothing: every request may be made."""

    is_empty = True

    async def reserve(self, quote: Quote) -> None:
        """Returns None."""
        del quote

    async def wait(self) -> None:
        """Returns after one turn of the event loop."""
        await asyncio.sleep(0)

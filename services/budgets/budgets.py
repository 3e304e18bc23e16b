"""Budgets of a day: the longest cost of a request is reserved in each that applies to it."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from uuid import uuid4

import structlog
from cachetools import LRUCache

from core.background import BackgroundTasks
from core.clock import Backoff, Clock, draw_pause_s
from core.config.providers import ProviderSettings
from core.db.database import Database
from core.errors import StorageError
from services.budgets.accounts import UNLIMITED, Account, BudgetAccounts, Overdrawn, Settlement, utc
from services.budgets.limits import BudgetLimits, LimitsInEffect, to_nanousd
from services.budgets.settlements import HeldBudget, Settlements
from services.llm.routing.admission.budget_guard import BudgetKind, BudgetRefusal, Quote
from services.pseudonyms import Pseudonyms
from services.usage.prices import NANO, Prices

log = structlog.get_logger()

MAX_REFUSALS = 10_000


@dataclass(frozen=True, slots=True)
class BudgetTiming:
    """Intervals, in seconds.

    Args:
        hold_s: lifetime of a reservation that is not extended.
        upkeep_s: interval of extending reservations, releasing expired ones and reading the admins' limits; well below
            `hold_s`.
        poll_s: longest wait of a request for a reservation of another replica.
        answer_s: timeout of the database, after which the request continues and its cost is added later.
        last_write_s: timeout of the last settlements at shutdown.
    """

    hold_s: float = 120.0
    upkeep_s: float = 10.0
    poll_s: float = 0.5
    answer_s: float = 3.0
    last_write_s: float = 3.0
    retry: Backoff = Backoff(1.0, 30.0)


@dataclass(frozen=True, slots=True)
class BudgetState:
    """One budget today, in USD; `limit_usd` is None where there is none."""

    limit_usd: float | None
    spent_usd: float
    renews_at: datetime


@dataclass(frozen=True, slots=True)
class _Refused:
    """A refusal that holds for a moment: of the same amount or more, until an instant of the monotonic clock."""

    refusal: BudgetRefusal
    amount: int
    until: float


class Budgets:
    """Guards the budgets of all requests.

    Args:
        zone: a day starts at its midnight.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        pseudonyms: Pseudonyms,
        limits: BudgetLimits | None = None,
        prices: Prices | None = None,
        *,
        zone: tzinfo = UTC,
        timing: BudgetTiming | None = None,
    ) -> None:
        self._accounts = BudgetAccounts(database)
        self._clock = clock
        self.limits = LimitsInEffect(self._accounts, pseudonyms, limits or BudgetLimits())
        self.is_empty = self.limits.is_empty
        """True if no request is limited, except by its provider's settings."""
        self._prices = prices or Prices()
        self._zone = zone
        self._timing = timing or BudgetTiming()
        self._held: set[str] = set()
        self._refused: LRUCache[str, _Refused] = LRUCache(MAX_REFUSALS)
        self._reserve_lock = asyncio.Lock()
        self._changed = asyncio.Event()
        self.settlements = Settlements(self._accounts, self._prices, clock, self._timing.retry, self._note_settled)
        self._tasks = BackgroundTasks()

    async def start(self) -> None:
        """Reads the limits that admins set, and starts the background work.

        Raises:
            StorageError: the database fails.
        """
        await self.limits.refresh()
        self._note_change()
        self._tasks.start(self.settlements.run(), "budgets.settle")
        self._tasks.start(self._keep_up(), "budgets.upkeep")

    async def close(self) -> None:
        """Settles the open holds and stops. One that cannot be settled is given back once its hold expires."""
        try:
            async with asyncio.timeout(self._timing.last_write_s):
                await self.settlements.flush()
        except (StorageError, TimeoutError) as error:
            log.warning("budget.not_settled", requests=len(self.settlements), error=type(error).__name__)
        await self._tasks.close()

    async def reserve(self, quote: Quote) -> HeldBudget | BudgetRefusal | None:
        """Reserves the cost of a request at its upper bound; see `BudgetGuard`.

        While the database fails, requests are made without a reservation, and their cost is added afterwards.
        """
        accounts = self.limits.accounts_of(quote)
        amount = await self._price(quote) if accounts else 0
        if not amount:
            return None
        async with self._reserve_lock:
            # One at a time: requests that wait for the same budget would only block each other in the database.
            return self._known_refusal(accounts, amount) or await self._reserve(accounts, amount)

    async def _reserve(self, accounts: Sequence[Account], amount: int) -> HeldBudget | BudgetRefusal:
        day, request = self.today, uuid4().hex
        held = HeldBudget(self.settlements, Settlement(request, 0))
        try:
            expires_at = utc(self._clock.time() + self._timing.hold_s)
            async with asyncio.timeout(self._timing.answer_s):
                await self._accounts.reserve(request, accounts, amount, day, expires_at)
        except Overdrawn as error:
            return self._note_refusal(error, amount)
        except TimeoutError:
            log.warning("budget.reservation_timed_out", seconds=self._timing.answer_s)
            # It may have been written.
            held.settle()
            return BudgetRefusal(accounts[0].kind, self.renews_at.timestamp(), is_temporary=True)
        except StorageError as error:
            log.warning("budget.not_reserved", error=str(error))
            return HeldBudget(self.settlements, Settlement(request, 0, [account.scope for account in accounts], day))
        except asyncio.CancelledError:
            held.settle()
            raise
        self._held.add(request)
        return held

    def _known_refusal(self, accounts: Sequence[Account], amount: int) -> BudgetRefusal | None:
        """Returns the refusal of a request that another one was refused a moment ago."""
        now = self._clock.monotonic()
        for account in accounts:
            known = self._refused.get(account.scope)
            if known is not None and known.amount <= amount and now < known.until:
                return known.refusal
        return None

    def _note_refusal(self, error: Overdrawn, amount: int) -> BudgetRefusal:
        timing = self._timing
        refusal = BudgetRefusal(error.account.kind, self.renews_at.timestamp(), error.is_temporary)
        valid_s = timing.poll_s / 2 if error.is_temporary else timing.upkeep_s
        until = min(self._clock.monotonic() + valid_s, self._clock.monotonic() + refusal.renews_at - self._clock.time())
        self._refused[error.account.scope] = _Refused(refusal, amount, until)
        return refusal

    async def wait(self) -> None:
        """Waits for a settlement of this process, or a moment for one of another."""
        self._changed.clear()
        pause_s = draw_pause_s(self._timing.poll_s / 2, self._timing.poll_s)
        pause = asyncio.create_task(self._clock.sleep(pause_s))
        change = asyncio.create_task(self._changed.wait())
        try:
            await asyncio.wait({pause, change}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            pause.cancel()
            change.cancel()

    async def keep_up(self) -> None:
        """Extends the holds in flight, gives back those of ended processes, and reads the limits anew.

        Raises:
            StorageError: the database fails.
        """
        now = self._clock.time()
        if self._held:
            await self._accounts.extend(self._held, utc(now + self._timing.hold_s))
        given_back = await self._accounts.give_back(utc(now))
        if given_back:
            log.warning("budget.holds_given_back", holds=given_back)
        await self.limits.refresh()
        self._note_change()

    def _note_settled(self, requests: Collection[str]) -> None:
        self._held.difference_update(requests)
        self._note_change()

    def _note_change(self) -> None:
        """Lets requests that wait, or that were refused before, look again."""
        self.is_empty = self.limits.is_empty
        self._refused.clear()
        self._changed.set()

    @property
    def today(self) -> date:
        """The current day."""
        return self._clock.now().astimezone(self._zone).date()

    @property
    def renews_at(self) -> datetime:
        """The next midnight."""
        return datetime.combine(self.today + timedelta(days=1), datetime.min.time(), self._zone)

    async def state(self, kind: BudgetKind, reference: str = "") -> BudgetState:
        """Returns the budget of a user, a chat or of all today.

        Args:
            kind: kind of the owner.
            reference: the user or chat; empty for the budget of all.

        Raises:
            StorageError: the database fails.
        """
        return await self._state(kind, reference, self.limits.limit(kind, reference))

    async def state_of(self, provider: ProviderSettings) -> BudgetState:
        """Returns the budget of a provider today.

        Raises:
            StorageError: the database fails.
        """
        return await self._state(BudgetKind.PROVIDER, provider.id, to_nanousd(provider.budget_day_usd))

    async def _state(self, kind: BudgetKind, reference: str, limit: int | None) -> BudgetState:
        account = Account(kind, self.limits.scope(kind, reference), reference, UNLIMITED if limit is None else limit)
        spent = await self._accounts.spent(account, self.today)
        return BudgetState(None if limit is None else limit / NANO, spent / NANO, self.renews_at)

    async def set_limit(self, kind: BudgetKind, reference: str, usd: float | None) -> None:
        """Sets a budget in place of that of the settings; None for no limit.

        Raises:
            StorageError: the database fails.
        """
        account = Account(kind, self.limits.scope(kind, reference), reference, 0)
        limit = to_nanousd(usd)
        label = f"{kind}:{reference}"
        await self._accounts.set_limit(account, limit, label, self.today, self._clock.now())
        self.limits.replace(account.scope, limit)
        self._note_change()

    async def clear_limit(self, kind: BudgetKind, reference: str) -> bool:
        """Returns to the budget of the settings. Returns whether another one was set.

        Raises:
            StorageError: the database fails.
        """
        scope = self.limits.scope(kind, reference)
        was_set = await self._accounts.clear_limit(scope)
        self.limits.restore(scope)
        self._note_change()
        return was_set

    async def _price(self, quote: Quote) -> int:
        """Returns the cost of a request at its upper bound; 0 where its price is unknown."""
        input_tokens, max_tokens = quote.size()
        # The price library reads its data on first use, which takes a while.
        cost = await asyncio.to_thread(
            self._prices.bound_nanousd, quote.provider, quote.model, input_tokens, max_tokens, self._clock.time()
        )
        return cost or 0

    async def _keep_up(self) -> None:
        while True:
            await self._clock.sleep(self._timing.upkeep_s)
            try:
                await self.keep_up()
            except StorageError as error:
                log.warning("budget.upkeep_failed", error=str(error))

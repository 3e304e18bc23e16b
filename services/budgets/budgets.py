"""Budgets of a day: which apply to a request, its reservation, and the settlement in the background."""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from services.llm.routing.admission.budget_guard import BudgetKind, BudgetRefusal, Quote
from services.llm.usage import RequestReport
from services.pseudonyms import Pseudonyms
from services.usage.prices import NANO, Prices

log = structlog.get_logger()

OWN_PURPOSES = frozenset({"moderation"})
"""Purposes that count in no budget of a user or a chat: spam must not use up the protection from it."""
MAX_REFUSALS = 10_000


@dataclass(frozen=True, slots=True)
class BudgetLimits:
    """The limits of the settings, in USD a day; None for none. Those of providers are in their settings."""

    user_usd: float | None = None
    chat_usd: float | None = None
    all_usd: float | None = None

    @property
    def is_empty(self) -> bool:
        """True if nothing is limited."""
        return self.user_usd is None and self.chat_usd is None and self.all_usd is None


@dataclass(frozen=True, slots=True)
class BudgetTiming:
    """Intervals, in seconds.

    Args:
        hold_s: a reservation that is not extended is given back after it.
        upkeep_s: interval of extending, giving back and reading the limits that admins set; well below `hold_s`.
        poll_s: longest wait of a request for a reservation of another replica.
        answer_s: limit of the database's answer; without one the request goes on, and its cost is added afterwards.
        last_write_s: limit of the last settlements at shutdown.
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
    reserved_usd: float
    renews_at: datetime


@dataclass(frozen=True, slots=True)
class _Refused:
    """A refusal that holds for a moment: of the same amount or more, until an instant of the monotonic clock."""

    refusal: BudgetRefusal
    amount: int
    until: float


class HeldBudget:
    """The reservation of one attempt. Its costs are added up and settled once."""

    def __init__(self, owner: "Budgets", settlement: Settlement) -> None:
        self._owner = owner
        self._settlement = settlement
        self._reports: list[RequestReport] = []
        self._is_settled = False

    def add(self, report: RequestReport) -> None:
        """Adds the cost of one request."""
        self._reports.append(report)

    def settle(self) -> None:
        """Queues the settlement."""
        if not self._is_settled:
            self._is_settled = True
            self._owner.queue(self._settlement, self._reports)


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
        self._pseudonyms = pseudonyms
        self._limits = limits or BudgetLimits()
        self._prices = prices or Prices()
        self._zone = zone
        self._timing = timing or BudgetTiming()
        self._overrides: Mapping[str, int | None] = {}
        self._held: set[str] = set()
        self._refused: LRUCache[str, _Refused] = LRUCache(MAX_REFUSALS)
        self._reserve_lock = asyncio.Lock()
        self._settled: deque[tuple[Settlement, Sequence[RequestReport]]] = deque()
        self._has_settled = asyncio.Event()
        self._changed = asyncio.Event()
        self._write_lock = asyncio.Lock()
        self._tasks = BackgroundTasks()

    async def start(self) -> None:
        """Reads the limits that admins set, and starts the background work.

        Raises:
            StorageError: the database fails.
        """
        self._overrides = await self._accounts.limits()
        self._tasks.start(self._settle_behind(), "budgets.settle")
        self._tasks.start(self._keep_up(), "budgets.upkeep")

    async def close(self) -> None:
        """Settles the open holds and stops. One that cannot be settled is given back once its hold expires."""
        try:
            async with asyncio.timeout(self._timing.last_write_s):
                await self.flush()
        except (StorageError, TimeoutError) as error:
            log.warning("budget.not_settled", requests=len(self._settled), error=type(error).__name__)
        await self._tasks.close()

    async def reserve(self, quote: Quote) -> HeldBudget | BudgetRefusal | None:
        """Reserves the cost of a request at its upper bound; see `BudgetGuard`.

        While the database fails, requests are made without a reservation, and their cost is added afterwards.
        """
        if self._limits.is_empty and not self._overrides and quote.provider.budget_day_usd is None:
            return None
        accounts = self._accounts_of(quote)
        amount = await self._price(quote) if accounts else 0
        if not amount:
            return None
        async with self._reserve_lock:
            # One at a time: requests that wait for the same budget would only block each other in the database.
            return self._known_refusal(accounts, amount) or await self._reserve(accounts, amount)

    async def _reserve(self, accounts: Sequence[Account], amount: int) -> HeldBudget | BudgetRefusal:
        day, request = self.today, uuid4().hex
        held = HeldBudget(self, Settlement(request, 0))
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
            return HeldBudget(self, Settlement(request, 0, [account.scope for account in accounts], day))
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

    def queue(self, settlement: Settlement, reports: Sequence[RequestReport]) -> None:
        """Settles a request in the background."""
        self._settled.append((settlement, tuple(reports)))
        self._has_settled.set()

    async def flush(self) -> None:
        """Settles everything that is queued.

        Raises:
            StorageError: the database fails; the rest stays queued.
        """
        async with self._write_lock:
            while self._settled:
                entries = list(self._settled)
                batch = await asyncio.to_thread(self._to_settlements, entries)
                await self._accounts.settle(batch)
                for _ in entries:
                    self._settled.popleft()
                self._held.difference_update(settlement.request for settlement in batch)
                self._note_change()
            self._has_settled.clear()

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
        self._overrides = await self._accounts.limits()
        self._note_change()

    def _note_change(self) -> None:
        """Lets requests that wait, or that were refused before, look again."""
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
            kind: of its owner.
            reference: the user or chat; empty for the budget of all.

        Raises:
            StorageError: the database fails.
        """
        return await self._state(kind, reference, self._limit(kind, reference))

    async def state_of(self, provider: ProviderSettings) -> BudgetState:
        """Returns the budget of a provider today.

        Raises:
            StorageError: the database fails.
        """
        return await self._state(BudgetKind.PROVIDER, provider.id, _to_nanousd(provider.budget_day_usd))

    async def _state(self, kind: BudgetKind, reference: str, limit: int | None) -> BudgetState:
        account = Account(kind, self._scope(kind, reference), reference, UNLIMITED if limit is None else limit)
        balance = await self._accounts.balance(account, self.today)
        return BudgetState(
            None if limit is None else limit / NANO, balance.spent / NANO, balance.reserved / NANO, self.renews_at
        )

    async def set_limit(self, kind: BudgetKind, reference: str, usd: float | None) -> None:
        """Sets a budget in place of that of the settings; None for no limit.

        Raises:
            StorageError: the database fails.
        """
        account = Account(kind, self._scope(kind, reference), reference, 0)
        limit = _to_nanousd(usd)
        label = f"{kind}:{reference}"
        await self._accounts.set_limit(account, limit, label, self.today, self._clock.now())
        self._overrides = {**self._overrides, account.scope: limit}
        self._note_change()

    async def clear_limit(self, kind: BudgetKind, reference: str) -> bool:
        """Returns to the budget of the settings. Returns whether another one was set.

        Raises:
            StorageError: the database fails.
        """
        scope = self._scope(kind, reference)
        was_set = await self._accounts.clear_limit(scope)
        self._overrides = {other: limit for other, limit in self._overrides.items() if other != scope}
        self._note_change()
        return was_set

    async def labels(self) -> Mapping[str, float | None]:
        """Returns the budgets that admins set, in USD, by `user:...` and `chat:...`.

        Raises:
            StorageError: the database fails.
        """
        labels = await self._accounts.labels()
        return {label: None if limit is None else limit / NANO for label, limit in labels.items()}

    def _accounts_of(self, quote: Quote) -> list[Account]:
        spec, provider = quote.spec, quote.provider
        limits = [
            (BudgetKind.PROVIDER, provider.id, _to_nanousd(provider.budget_day_usd)),
            (BudgetKind.ALL, "", self._limit(BudgetKind.ALL, "")),
        ]
        if spec.purpose not in OWN_PURPOSES:
            owners = ((BudgetKind.USER, spec.user), (BudgetKind.CHAT, spec.chat))
            limits += [(kind, owner, self._limit(kind, owner)) for kind, owner in owners if owner is not None]
        return [
            Account(kind, self._scope(kind, owner), owner, limit) for kind, owner, limit in limits if limit is not None
        ]

    def _limit(self, kind: BudgetKind, reference: str) -> int | None:
        """Returns the limit of a user, a chat or of all, in billionths of a dollar."""
        scope = self._scope(kind, reference)
        if scope in self._overrides:
            return self._overrides[scope]
        match kind:
            case BudgetKind.USER:
                return _to_nanousd(self._limits.user_usd)
            case BudgetKind.CHAT:
                return _to_nanousd(self._limits.chat_usd)
            case _:
                return _to_nanousd(self._limits.all_usd)

    def _scope(self, kind: BudgetKind, reference: str) -> str:
        match kind:
            case BudgetKind.USER | BudgetKind.CHAT:
                return f"{kind}:{self._pseudonyms.of(reference)}"
            case BudgetKind.PROVIDER:
                return f"{kind}:{reference}"
            case BudgetKind.ALL:
                return kind

    async def _price(self, quote: Quote) -> int:
        """Returns the cost of a request at its upper bound; 0 where its price is unknown."""
        input_tokens, max_tokens = quote.size()
        # The price library reads its data on first use, which takes a while.
        cost = await asyncio.to_thread(
            self._prices.bound_nanousd, quote.provider, quote.model, input_tokens, max_tokens, self._clock.time()
        )
        return cost or 0

    def _to_settlements(self, entries: Sequence[tuple[Settlement, Sequence[RequestReport]]]) -> list[Settlement]:
        return [
            replace(settlement, cost=sum(self._prices.cost_nanousd(report) or 0 for report in reports))
            for settlement, reports in entries
        ]

    async def _settle_behind(self) -> None:
        failures = 0
        while True:
            await self._has_settled.wait()
            try:
                await self.flush()
                failures = 0
            except StorageError as error:
                failures += 1
                log.warning("budget.settlement_failed", requests=len(self._settled), error=str(error))
                await self._clock.sleep(self._timing.retry.pause_s(failures))

    async def _keep_up(self) -> None:
        while True:
            await self._clock.sleep(self._timing.upkeep_s)
            try:
                await self.keep_up()
            except StorageError as error:
                log.warning("budget.upkeep_failed", error=str(error))


def _to_nanousd(usd: float | None) -> int | None:
    return None if usd is None else round(usd * NANO)

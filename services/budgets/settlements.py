"""Settlements of requests that are over: their true cost replaces their reservation, in the background."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import structlog

from core.clock import Backoff, Clock
from core.errors import StorageError
from services.budgets.accounts import BudgetAccounts, Settlement
from services.llm.usage import RequestReport
from services.usage.prices import Prices

log = structlog.get_logger()


class HeldBudget:
    """The reservation of one attempt. Its costs are added up and settled once."""

    def __init__(self, owner: "Settlements", settlement: Settlement) -> None:
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


class Settlements:
    """Queues and writes settlements.

    Args:
        retry: pauses while the database fails.
        on_settled: receives the ids of the requests that were written. It must not block.
    """

    def __init__(
        self,
        accounts: BudgetAccounts,
        prices: Prices,
        clock: Clock,
        retry: Backoff,
        on_settled: Callable[[Collection[str]], None],
    ) -> None:
        self._accounts = accounts
        self._prices = prices
        self._clock = clock
        self._retry = retry
        self._on_settled = on_settled
        self._settled: deque[tuple[Settlement, Sequence[RequestReport]]] = deque()
        self._has_settled = asyncio.Event()
        self._write_lock = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._settled)

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
                self._on_settled({settlement.request for settlement in batch})
            self._has_settled.clear()

    async def run(self) -> None:
        """Writes queued settlements until cancelled; retries while the database fails."""
        failures = 0
        while True:
            await self._has_settled.wait()
            try:
                await self.flush()
                failures = 0
            except StorageError as error:
                failures += 1
                log.warning("budget.settlement_failed", requests=len(self._settled), error=str(error))
                await self._clock.sleep(self._retry.pause_s(failures))

    def _to_settlements(self, entries: Sequence[tuple[Settlement, Sequence[RequestReport]]]) -> list[Settlement]:
        return [
            replace(settlement, cost=sum(self._prices.cost_nanousd(report) or 0 for report in reports))
            for settlement, reports in entries
        ]

"""The accounts behind budgets: conditional updates in SQL, the same on SQLite and PostgreSQL."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import case, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.db.database import Database
from core.db.usage_tables import BudgetDayRow, BudgetHoldRow, BudgetLimitRow, UsageDayRow
from services.llm.routing.admission.budget_guard import BudgetKind

KEPT_DAYS = timedelta(days=3)
"""Time until a day and the holds that were given back are deleted."""
UNLIMITED = 2**62


@dataclass(frozen=True, slots=True)
class Account:
    """One budget that a request counts in.

    Args:
        scope: key of its rows.
        reference: the user, chat or provider in the usage ledger; empty for the budget of all.
        limit: daily limit in billionths of a dollar.
    """

    kind: BudgetKind
    scope: str
    reference: str
    limit: int


@dataclass(frozen=True, slots=True)
class Settlement:
    """A finished request. One that could not be reserved names the scopes and the day that its cost counts in."""

    request: str
    cost: int
    scopes: Sequence[str] = ()
    day: date | None = None


class Overdrawn(Exception):
    """A budget does not cover an amount; the transaction is rolled back."""

    def __init__(self, account: Account, *, is_temporary: bool) -> None:
        self.account = account
        self.is_temporary = is_temporary
        super().__init__(account.kind)


class BudgetAccounts:
    """Stores limits, spending and reservations. Each method raises StorageError where the database fails."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._opened: set[tuple[str, date]] = set()

    async def limits(self) -> Mapping[str, int | None]:
        """Returns the limits that admins set, by scope."""
        async with self._database.reading() as session:
            rows = await session.execute(select(BudgetLimitRow.scope, BudgetLimitRow.limit_nanousd))
            return {row.scope: row.limit_nanousd for row in rows}

    async def labels(self) -> Mapping[str, int | None]:
        """Returns the limits that admins set, by the name under which they set them."""
        columns = (BudgetLimitRow.label, BudgetLimitRow.limit_nanousd)
        async with self._database.reading() as session:
            rows = await session.execute(select(*columns).order_by(BudgetLimitRow.label))
            return {row.label: row.limit_nanousd for row in rows if row.label is not None}

    async def set_limit(self, account: Account, limit: int | None, label: str, day: date, now: datetime) -> None:
        """Sets a limit; the ledger's usage of this day counts against it."""
        values = {"label": label, "limit_nanousd": limit, "updated_at": now}
        statement = self._database.insert(BudgetLimitRow).values(scope=account.scope, **values)
        async with self._database.session() as session:
            await session.execute(statement.on_conflict_do_update(index_elements=["scope"], set_=values))
            known = await self._ledger_sum(session, account, day)
            await self._open(session, account, day, known)
            await session.execute(
                update(BudgetDayRow)
                .where(BudgetDayRow.scope == account.scope, BudgetDayRow.day == day, BudgetDayRow.spent < known)
                .values(spent=known)
            )

    async def clear_limit(self, scope: str) -> bool:
        """Removes a limit. Returns whether there was one."""
        async with self._database.session() as session:
            gone = await session.scalars(
                delete(BudgetLimitRow).where(BudgetLimitRow.scope == scope).returning(BudgetLimitRow.scope)
            )
            return bool(gone.all())

    async def spent(self, account: Account, day: date) -> int:
        """Returns the amount that is spent of a budget: by its account, else by the ledger."""
        async with self._database.reading() as session:
            row = await session.get(BudgetDayRow, (account.scope, day))
            return row.spent if row is not None else await self._ledger_sum(session, account, day)

    async def reserve(
        self, request: str, accounts: Sequence[Account], amount: int, day: date, expires_at: datetime
    ) -> None:
        """Reserves an amount in each account.

        Raises:
            Overdrawn: one of them does not cover it; nothing is reserved.
        """
        # In one order for all, so that two replicas do not deadlock.
        ordered = sorted(accounts, key=lambda account: account.scope)
        async with self._database.session() as session:
            for account in ordered:
                if (account.scope, day) not in self._opened:
                    await self._open(session, account, day)
            for account in ordered:
                await self._reserve_one(session, account, amount, day)
            session.add_all(
                BudgetHoldRow(
                    request=request,
                    scope=account.scope,
                    day=day,
                    amount=amount,
                    expires_at=expires_at,
                    is_given_back=False,
                )
                for account in ordered
            )
        self._opened = {opened for opened in self._opened if opened[1] == day}
        self._opened.update((account.scope, day) for account in ordered)

    async def settle(self, batch: Sequence[Settlement]) -> None:
        """Replaces reservations by costs. A request that is settled again changes nothing."""
        costs = {settlement.request: settlement.cost for settlement in batch}
        changes: dict[tuple[str, date], list[int]] = defaultdict(lambda: [0, 0])
        async with self._database.session() as session:
            gone = await session.scalars(
                delete(BudgetHoldRow).where(BudgetHoldRow.request.in_(costs)).returning(BudgetHoldRow)
            )
            reserved: set[str] = set()
            for hold in gone:
                reserved.add(hold.request)
                change = changes[hold.scope, hold.day]
                change[0] += costs[hold.request]
                change[1] += 0 if hold.is_given_back else hold.amount
            for settlement in batch:
                # A reservation without its confirmation is a reservation all the same.
                if settlement.day is not None and settlement.request not in reserved:
                    for scope in settlement.scopes:
                        changes[scope, settlement.day][0] += settlement.cost
            await _apply(session, changes)

    async def extend(self, requests: Iterable[str], expires_at: datetime) -> None:
        """Extends the holds of requests in flight."""
        async with self._database.session() as session:
            await session.execute(
                update(BudgetHoldRow)
                .where(BudgetHoldRow.request.in_(list(requests)), BudgetHoldRow.is_given_back.is_(False))
                .values(expires_at=expires_at)
            )

    async def give_back(self, now: datetime) -> int:
        """Gives back the holds of ended processes, and deletes old rows. Returns the number of holds given back."""
        due = (BudgetHoldRow.expires_at < now) & BudgetHoldRow.is_given_back.is_(False)
        old = now - KEPT_DAYS
        async with self._database.reading() as session:
            is_due = await session.scalar(select(func.count()).where(due))
            is_old = await session.scalar(select(func.count()).where(BudgetDayRow.day < old.date()))
        if not is_due and not is_old:
            return 0
        changes: dict[tuple[str, date], list[int]] = defaultdict(lambda: [0, 0])
        async with self._database.session() as session:
            gone = await session.scalars(
                update(BudgetHoldRow).where(due).values(is_given_back=True).returning(BudgetHoldRow)
            )
            given_back = gone.all()
            for hold in given_back:
                changes[hold.scope, hold.day][1] += hold.amount
            await _apply(session, changes)
            await session.execute(delete(BudgetHoldRow).where(BudgetHoldRow.expires_at < old))
            await session.execute(delete(BudgetDayRow).where(BudgetDayRow.day < old.date()))
        return len(given_back)

    async def _open(self, session: AsyncSession, account: Account, day: date, spent: int | None = None) -> None:
        """Creates the row of a day, with the usage that the ledger already knows."""
        if spent is None:
            if await session.get(BudgetDayRow, (account.scope, day)) is not None:
                return
            spent = await self._ledger_sum(session, account, day)
        row = self._database.insert(BudgetDayRow).values(scope=account.scope, day=day, spent=spent, reserved=0)
        await session.execute(row.on_conflict_do_nothing())

    async def _reserve_one(self, session: AsyncSession, account: Account, amount: int, day: date) -> None:
        row = (BudgetDayRow.scope == account.scope) & (BudgetDayRow.day == day)
        reserved = await session.scalars(
            update(BudgetDayRow)
            .where(row, BudgetDayRow.spent + BudgetDayRow.reserved + amount <= account.limit)
            .values(reserved=BudgetDayRow.reserved + amount)
            .returning(BudgetDayRow.scope)
            .execution_options(synchronize_session=False)
        )
        if not reserved.all():
            spent = await session.scalar(select(BudgetDayRow.spent).where(row)) or 0
            raise Overdrawn(account, is_temporary=spent + amount <= account.limit)

    @staticmethod
    async def _ledger_sum(session: AsyncSession, account: Account, day: date) -> int:
        query = select(func.coalesce(func.sum(UsageDayRow.cost_nanousd), 0)).where(UsageDayRow.day == day)
        match account.kind:
            case BudgetKind.USER:
                query = query.where(UsageDayRow.speaker == account.reference)
            case BudgetKind.CHAT:
                query = query.where(UsageDayRow.chat == account.reference, UsageDayRow.purpose != "moderation")
            case BudgetKind.PROVIDER:
                query = query.where(UsageDayRow.provider == account.reference)
            case BudgetKind.ALL:
                pass
        return int(await session.scalar(query) or 0)


async def _apply(session: AsyncSession, changes: Mapping[tuple[str, date], Sequence[int]]) -> None:
    """Adds spent amounts and takes off ended reservations, in one order."""
    for (scope, day), (spent, released) in sorted(changes.items()):
        await session.execute(
            update(BudgetDayRow)
            .where(BudgetDayRow.scope == scope, BudgetDayRow.day == day)
            .values(
                spent=BudgetDayRow.spent + spent,
                reserved=case((BudgetDayRow.reserved > released, BudgetDayRow.reserved - released), else_=0),
            )
            .execution_options(synchronize_session=False)
        )


def utc(seconds: float) -> datetime:
    """Returns an instant of the clock as a datetime."""
    return datetime.fromtimestamp(seconds, UTC)

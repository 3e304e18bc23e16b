"""Tokens of other programs: those of API_TOKENS and those made at run time, found by their hash."""

import asyncio
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import delete, select

from core.clock import Clock
from core.db.database import Database
from core.db.tables import ApiTokenRow
from core.errors import StorageError
from core.messages import ChatRef, UserRef
from services.budgets.budgets import Budgets
from services.llm.routing.admission.budget_guard import BudgetKind

log = structlog.get_logger()

FRESH_S = 1.0
"""Seconds for which stored tokens are cached; a change holds on all replicas after them."""
PREFIX = "us-"
"""Begins every token that is made here, so that a scanner of repositories can find one that has leaked."""
_NANO = 1_000_000_000


@dataclass(frozen=True, slots=True)
class TokenLimits:
    """Rights and limits of a token. None stands for the limit that applies to a person.

    Args:
        models: patterns of `<provider>/<model>`, in which `*` stands for any text; empty for all.
        requests_per_minute: 0 for no limit.
        running: requests at once; more wait their turn. 0 for no limit.
        budget_day_usd: spending of a day, reserved before each request as the budget of a person is.
        remote_consent: whether prompts may go to providers outside the operator's machines.
    """

    models: tuple[str, ...] = ()
    requests_per_minute: int | None = None
    running: int | None = None
    budget_day_usd: float | None = None
    remote_consent: bool | None = None


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A token that may use the endpoint.

    Args:
        name: counts as the person `api:NAME` in usage, limits, budgets and consent.
        is_configured: whether it is one of API_TOKENS, so that it cannot be revoked at run time.
    """

    name: str
    limits: TokenLimits = TokenLimits()
    is_configured: bool = False

    @property
    def user(self) -> UserRef:
        """The token as a person."""
        return UserRef(f"api:{self.name}")

    @property
    def chat(self) -> ChatRef:
        """The token as a chat, for its consent."""
        return ChatRef(f"api:{self.name}")


class UnknownToken(LookupError):
    """There is no token of that name."""


class TokenExists(ValueError):
    """There is a token of that name already."""


class TokenStore:
    """Finds, makes, changes and revokes tokens. Only their SHA-256 is stored: tokens are too random to be guessed.

    Args:
        configured: tokens by name, of API_TOKENS.
        budgets: reserve the cost of a token's requests, as of a person with a budget of their own.
    """

    def __init__(self, database: Database, clock: Clock, configured: Mapping[str, str], budgets: Budgets) -> None:
        self._database = database
        self._budgets = budgets
        self._clock = clock
        self._configured = {name: _digest(token) for name, token in configured.items()}
        self._known: Sequence[tuple[bytes, ApiToken]] = self._join(())
        self._read_at: float | None = None
        self._reading = asyncio.Lock()

    async def find(self, shown: str) -> ApiToken | None:
        """Returns the token that a request shows; None if there is none.

        While the database fails, the tokens that were read last count.
        """
        await self._refresh()
        digest, found = _digest(shown), None
        for known, token in self._known:
            # Without an early end: the time tells nothing about which one matched.
            if hmac.compare_digest(known, digest):
                found = token
        return found

    async def all(self) -> Sequence[ApiToken]:
        """Returns every token, those of API_TOKENS first.

        Raises:
            StorageError: the database failed.
        """
        await self._read()
        return [token for _, token in self._known]

    async def create(self, name: str, limits: TokenLimits, made_by: int) -> str:
        """Makes a token and returns it. It is shown this once and stored nowhere.

        Raises:
            TokenExists: the name is taken.
            StorageError: the database failed.
        """
        token = PREFIX + secrets.token_urlsafe(32)
        statement = self._database.insert(ApiTokenRow).values(
            name=name,
            digest=_digest(token).hex(),
            created_at=self._clock.now(),
            created_by=made_by,
            **_columns(limits),
        )
        async with self._database.session() as session:
            row = await session.get(ApiTokenRow, name)
            if row is not None or name in self._configured:
                raise TokenExists(name)
            await session.execute(statement)
        await self._limit(name, limits)
        return token

    async def change(self, name: str, limits: TokenLimits, changed_by: int) -> None:
        """Sets the limits of a token, one of API_TOKENS included.

        Raises:
            UnknownToken: there is none of that name.
            StorageError: the database failed.
        """
        values = _columns(limits)
        async with self._database.session() as session:
            row = await session.get(ApiTokenRow, name)
            if row is not None:
                for column, value in values.items():
                    setattr(row, column, value)
            elif name in self._configured:
                now = self._clock.now()
                session.add(ApiTokenRow(name=name, digest=None, created_at=now, created_by=changed_by, **values))
            else:
                raise UnknownToken(name)
        await self._limit(name, limits)

    async def revoke(self, name: str) -> None:
        """Removes a token that was made at run time.

        Raises:
            UnknownToken: there is none of that name, or it is one of API_TOKENS.
            StorageError: the database failed.
        """
        if name in self._configured:
            raise UnknownToken(name)
        async with self._database.session() as session:
            removed = await session.scalar(
                delete(ApiTokenRow).where(ApiTokenRow.name == name).returning(ApiTokenRow.name)
            )
        if removed is None:
            raise UnknownToken(name)
        await self._limit(name, TokenLimits())

    async def _limit(self, name: str, limits: TokenLimits) -> None:
        """Gives a token its budget, or that of a person, and lets the next request read the tokens anew."""
        self._read_at = None
        user = ApiToken(name).user
        if limits.budget_day_usd is None:
            await self._budgets.clear_limit(BudgetKind.USER, user)
        else:
            await self._budgets.set_limit(BudgetKind.USER, user, limits.budget_day_usd)

    async def _refresh(self) -> None:
        now = self._clock.monotonic()
        if self._read_at is not None and now - self._read_at < FRESH_S:
            return
        try:
            await self._read()
        except StorageError as error:
            self._read_at = now
            log.warning("api.tokens_not_read", error=str(error))

    async def _read(self) -> None:
        async with self._reading:
            began = self._clock.monotonic()
            async with self._database.reading() as session:
                rows = list(await session.scalars(select(ApiTokenRow).order_by(ApiTokenRow.name)))
            self._known = self._join(rows)
            self._read_at = began

    def _join(self, rows: Sequence[ApiTokenRow]) -> Sequence[tuple[bytes, ApiToken]]:
        limits = {row.name: _limits(row) for row in rows}
        configured = [
            (digest, ApiToken(name, limits.get(name, TokenLimits()), is_configured=True))
            for name, digest in self._configured.items()
        ]
        # A name of API_TOKENS hides a token of that name that was made before.
        made = [
            (bytes.fromhex(row.digest), ApiToken(row.name, limits[row.name]))
            for row in rows
            if row.digest is not None and row.name not in self._configured
        ]
        return [*configured, *made]


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


def _limits(row: ApiTokenRow) -> TokenLimits:
    models: list[str] = json.loads(row.models) if row.models else []
    budget = row.budget_day_nanousd / _NANO if row.budget_day_nanousd is not None else None
    return TokenLimits(tuple(models), row.requests_per_minute, row.running, budget, row.remote_consent)


def _columns(limits: TokenLimits) -> dict[str, str | int | bool | None]:
    budget = limits.budget_day_usd
    return {
        "models": json.dumps(limits.models) if limits.models else None,
        "requests_per_minute": limits.requests_per_minute,
        "running": limits.running,
        "budget_day_nanousd": round(budget * _NANO) if budget is not None else None,
        "remote_consent": limits.remote_consent,
    }

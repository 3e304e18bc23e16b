"""Looks accounts up in public lists of spammers: CAS (Combot Anti-Spam) and LOLS. Off unless the operator names one.

A list gets the id of a newcomer's account, and nothing else. Answers are kept in this process; a list that fails is
left alone for a minute, and a message waits for all of them together no longer than `LookupLimits.timeout_s`.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any, cast

import httpx2
import structlog
from cachetools import TTLCache

from core.bounded_json import parse_json
from core.clock import Clock

log = structlog.get_logger()


class AccountList(StrEnum):
    """A public list of spammers' accounts."""

    CAS = "cas"
    LOLS = "lols"


@dataclass(frozen=True, slots=True)
class LookupLimits:
    """Bounds of the look-ups.

    Args:
        timeout_s: longest time that a message waits for all lists.
        running: look-ups at once; more wait for a place within `timeout_s`.
        body: bytes of an answer that are read.
        failures: failed look-ups in a row after which a list is left alone.
        rest_s: the time for which it is.
        kept_s: age of an answer at which the account is looked up again.
        accounts: answers in memory.
    """

    timeout_s: float = 1.5
    running: int = 8
    body: int = 64 * 1024
    failures: int = 3
    rest_s: float = 60.0
    kept_s: float = 6 * 3600.0
    accounts: int = 20_000


ADDRESSES: Mapping[AccountList, str] = {
    AccountList.CAS: "https://api.cas.chat/check?user_id={id}",
    AccountList.LOLS: "https://api.lols.bot/account?id={id}",
}
_FIELDS = {AccountList.CAS: "ok", AccountList.LOLS: "banned"}
"""The field of an answer that is true for a listed account; CAS answers `ok` only for one that it has a record of."""


@dataclass(slots=True)
class _Health:
    """Failures in a row of a list, and the monotonic time until which it is left alone."""

    failures: int = 0
    rests_until: float = 0.0


class AccountLists:
    """The lists that the operator has named.

    Args:
        lists: empty asks no one.
        addresses: URL of each list with `{id}`.
    """

    def __init__(
        self,
        lists: Sequence[AccountList],
        clock: Clock,
        *,
        limits: LookupLimits | None = None,
        addresses: Mapping[AccountList, str] = ADDRESSES,
        open_client: Callable[[], httpx2.AsyncClient] = httpx2.AsyncClient,
    ) -> None:
        self._lists = tuple(dict.fromkeys(lists))
        self._clock = clock
        self._limits = limits or LookupLimits()
        self._addresses = addresses
        self._open_client = open_client
        self._client: httpx2.AsyncClient | None = None
        self._places = asyncio.Semaphore(self._limits.running)
        self._health = {each: _Health() for each in self._lists}
        self._known: TTLCache[tuple[AccountList, int], bool] = TTLCache(
            self._limits.accounts, self._limits.kept_s, timer=clock.monotonic
        )

    @property
    def is_on(self) -> bool:
        """True if the operator has named a list."""
        return bool(self._lists)

    async def is_listed(self, account_id: int) -> bool:
        """Returns whether a list has an account; False where none of them answers in time."""
        known = [self._known.get((each, account_id)) for each in self._lists]
        if True in known:
            return True
        open_lists = [each for each, found in zip(self._lists, known, strict=True) if found is None]
        if not open_lists:
            return False
        answers = await asyncio.gather(*(self._look_up(each, account_id) for each in open_lists))
        return True in answers

    async def close(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _look_up(self, which: AccountList, account_id: int) -> bool:
        health, limits = self._health[which], self._limits
        if self._clock.monotonic() < health.rests_until:
            return False
        try:
            async with asyncio.timeout(limits.timeout_s), self._places:
                listed = await self._fetch(which, account_id)
        except (TimeoutError, httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            health.failures += 1
            if health.failures >= limits.failures:
                health.failures, health.rests_until = 0, self._clock.monotonic() + limits.rest_s
                log.warning("account_list.failing", list=which.value, error=type(error).__name__)
            return False
        health.failures = 0
        self._known[which, account_id] = listed
        return listed

    async def _fetch(self, which: AccountList, account_id: int) -> bool:
        """Asks a list.

        Raises:
            ValueError: the answer is not in the format of such a list.
        """
        if self._client is None:
            self._client = self._open_client()
        url, body = self._addresses[which].format(id=account_id), bytearray()
        async with self._client.stream("GET", url) as response:
            if response.status_code != HTTPStatus.OK:
                msg = f"status {response.status_code}"
                raise ValueError(msg)
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > self._limits.body:
                    raise ValueError("the answer is too long")
        answer: Any = parse_json(bytes(body))
        match cast("dict[str, object]", answer).get(_FIELDS[which]) if isinstance(answer, dict) else None:
            case bool(found):
                return found
            case _:
                raise ValueError("the answer names no state")

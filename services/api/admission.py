"""Admits requests of tokens: the rate, requests at once, and consent to remote providers."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from core.clock import Clock
from services.api.tokens import ApiToken
from services.limits.party_limits import Quota, RateEvent, RateLimiter, TurnPlaces
from services.preferences import PreferenceStore


class RateExceeded(Exception):
    """The token has made its requests of this minute."""

    def __init__(self, renewal_s: float) -> None:
        self.renewal_s = renewal_s
        super().__init__("the requests of this minute are used up")


class TooManyWaiting(Exception):
    """More requests of the token wait for a place than may."""


@dataclass(frozen=True, slots=True)
class AdmissionRules:
    """Limits of a token that has none of its own.

    Args:
        requests_per_minute: 0 for no limit.
        running: requests at once; more wait their turn. 0 for no limit.
        waiting: requests of one token that may wait for a place.
        asks_consent: whether remote providers need the consent of each token.
    """

    requests_per_minute: int
    running: int
    waiting: int = 1000
    asks_consent: bool = False


class ApiAdmission:
    """Decides about each request before a provider is asked."""

    def __init__(
        self,
        rules: AdmissionRules,
        rates: RateLimiter,
        places: TurnPlaces,
        preferences: PreferenceStore,
        clock: Clock,
    ) -> None:
        self._rules = rules
        self._rates = rates
        self._places = places
        self._preferences = preferences
        self._clock = clock
        self._waiting: dict[str, int] = {}

    async def count(self, token: ApiToken, request_id: str) -> None:
        """Counts a request.

        Raises:
            RateExceeded: the token has made too many.
        """
        own = token.limits.requests_per_minute
        limit = self._rules.requests_per_minute if own is None else own
        if not limit:
            return
        event = RateEvent(token.user, request_id, self._clock.time(), limit)
        (is_admitted,) = await self._rates.admit([event])
        if not is_admitted:
            raise RateExceeded(self._rates.renewal_s(token.user, self._clock.time()))

    @asynccontextmanager
    async def place(self, token: ApiToken) -> AsyncGenerator[None]:
        """Holds a place among the token's running requests, once it is the request's turn.

        Raises:
            TooManyWaiting: too many wait already.
        """
        name = token.user
        if self._waiting.get(name, 0) >= self._rules.waiting:
            raise TooManyWaiting
        own = token.limits.running
        quota = Quota(name, self._rules.running if own is None else own)
        self._waiting[name] = self._waiting.get(name, 0) + 1
        is_waiting = True
        try:
            async with self._places.place(name, (quota,)):
                self._leave_queue(name)
                is_waiting = False
                yield
        finally:
            if is_waiting:
                self._leave_queue(name)

    async def is_local_only(self, token: ApiToken) -> bool:
        """Returns whether the token's prompts must not go to remote providers.

        Raises:
            StorageError: the consent cannot be read.
        """
        own = token.limits.remote_consent
        if own is not None:
            return not own
        if not self._rules.asks_consent:
            return False
        return not (await self._preferences.get(token.chat)).remote_consent

    def _leave_queue(self, name: str) -> None:
        self._waiting[name] -= 1
        if not self._waiting[name]:
            del self._waiting[name]

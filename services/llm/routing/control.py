"""Operator control of the providers: force, clear, cooldown, reset, and reports of outcomes seen elsewhere."""

from collections.abc import Sequence

from core.clock import Clock
from core.errors import UnknownProvider
from services.llm.routing.faults.outcomes import classify_report
from services.llm.routing.recorder import OutcomeRecorder, RoutingTiming
from services.llm.routing.state import rules
from services.llm.routing.state.clock_bounds import SET_BY_ADMIN
from services.llm.routing.state.rules import Change
from services.llm.routing.state.shared_state import SharedRouting


class ProviderControl:
    """Changes the routing state on an operator's behalf. Every method waits briefly until Redis has the change.

    Args:
        providers: the ids of all configured providers; every other id raises `UnknownProvider`.
        usable: the ids of those that can be asked, by priority.
    """

    def __init__(
        self,
        providers: Sequence[str],
        usable: Sequence[str],
        shared: SharedRouting,
        clock: Clock,
        timing: RoutingTiming,
        recorder: OutcomeRecorder,
    ) -> None:
        self._providers = providers
        self._usable = usable
        self._shared = shared
        self._clock = clock
        self._timing = timing
        self._recorder = recorder

    async def force(self, provider: str, duration_s: float) -> None:
        """Put a provider first for a while, even during a cooldown."""
        require_known(provider, self._providers)
        await self._commit(rules.forced(provider, self._clock.time(), duration_s))

    async def clear(self) -> None:
        """End the force and the preference, so that the priority order applies; cooldowns stay."""
        await self._commit(rules.cleared(self._clock.time()))

    async def cool_down(self, provider: str, duration_s: float, by: str) -> None:
        """Put a provider last for a while.

        Args:
            provider: its id.
            duration_s: seconds from now.
            by: the admin, recorded as the cooldown's reporter.
        """
        require_known(provider, self._providers)
        now = self._clock.time()
        await self._commit(rules.cooled(provider, SET_BY_ADMIN, now, duration_s, by))

    async def reset(self, provider: str) -> None:
        """End a provider's cooldown, and a preference for one of lower priority."""
        require_known(provider, self._providers)
        await self._commit(rules.reset(provider, self._clock.time(), self._usable))

    async def report_failure(self, provider: str, error: BaseException, purpose: str) -> None:
        """Record a failure that a caller saw. It cools the provider down unless the fault is the caller's."""
        require_known(provider, self._providers)
        self._recorder.failed(provider, classify_report(error, self._recorder.limits.cooldown_s), purpose)
        await self._commit(_unchanged)

    async def report_success(self, provider: str, purpose: str) -> None:
        """Record an answer that a caller got. The first one after a change makes the provider preferred."""
        require_known(provider, self._providers)
        self._recorder.succeeded(provider, purpose, began=self._clock.time(), prefer=True)
        await self._commit(_unchanged)

    async def _commit(self, change: Change) -> None:
        await self._shared.commit(change, self._timing.acknowledge_s)


def require_known(provider: str, providers: Sequence[str]) -> None:
    """Check a provider's id.

    Raises:
        UnknownProvider: it is not configured.
    """
    if provider not in providers:
        raise UnknownProvider(provider, providers)


def _unchanged(routing: rules.Routing) -> rules.Routing:
    return routing

"""Operator control of the providers: force, clear, cooldown, reset, and reports of outcomes seen elsewhere."""

from core.clock import Clock
from services.llm.routing.faults.outcomes import classify_report
from services.llm.routing.recorder import OutcomeRecorder
from services.llm.routing.roster import ProviderRoster
from services.llm.routing.state import changes, rules
from services.llm.routing.state.clock_bounds import SET_BY_ADMIN
from services.llm.routing.state.rules import Change, OperatorOverrides
from services.llm.routing.state.shared_state import SharedRouting
from services.llm.routing.timing import RoutingTiming


class ProviderControl:
    """Changes the routing state on an operator's behalf. Every method waits briefly until Redis has the change.

    Args:
        roster: the configured providers; every other id raises `UnknownProvider`.
    """

    def __init__(
        self,
        roster: ProviderRoster,
        shared: SharedRouting,
        clock: Clock,
        timing: RoutingTiming,
        recorder: OutcomeRecorder,
    ) -> None:
        self._roster = roster
        self._shared = shared
        self._clock = clock
        self._timing = timing
        self._recorder = recorder

    async def force(self, provider: str, duration_s: float) -> None:
        """Puts a provider first for a while, even during a cooldown."""
        self._roster.require(provider)
        await self._commit(changes.forced(provider, self._clock.time(), duration_s))

    async def clear(self) -> None:
        """Ends the force and the preference, so that the priority order applies; cooldowns stay."""
        await self._commit(changes.cleared(self._clock.time()))

    async def follow_order(self) -> None:
        """Ends the preference, so that a changed priority order applies at once; a force and cooldowns stay."""
        await self._commit(changes.preference_ended(self._clock.time()))

    async def cool_down(self, provider: str, duration_s: float, by: str) -> None:
        """Puts a provider last for a while.

        Args:
            provider: id of the provider.
            duration_s: seconds from now.
            by: the admin, recorded as the cooldown's reporter.
        """
        self._roster.require(provider)
        now = self._clock.time()
        await self._commit(changes.cooled(provider, SET_BY_ADMIN, now, duration_s, by))

    async def reset(self, provider: str) -> None:
        """Ends a provider's cooldown, and a preference for one of lower priority."""
        self._roster.require(provider)
        await self._commit(changes.reset(provider, self._clock.time(), self._roster.usable))

    def find_overrides(self, provider: str) -> OperatorOverrides:
        """Returns the overrides that an act on a provider would replace."""
        return rules.find_overrides(self._shared.routing, provider)

    async def restore(self, provider: str, before: OperatorOverrides, after: OperatorOverrides) -> bool:
        """Undoes an act, unless something has changed since; returns whether it did.

        Args:
            provider: its id, empty for an act on the force alone.
            before: the overrides before the act.
            after: the overrides after it.
        """
        if provider:
            self._roster.require(provider)
        if self.find_overrides(provider) != after:
            return False
        await self._commit(changes.restored(provider, before, after, self._clock.time()))
        return True

    async def forget(self, provider: str) -> None:
        """Forgets the state of a provider that is no longer configured, on every replica."""
        await self._commit(changes.removed(provider, self._clock.time()))

    async def report_failure(self, provider: str, error: BaseException, purpose: str) -> None:
        """Records a failure that a caller saw. It cools the provider down unless the fault is the caller's."""
        known = self._roster.require(provider)
        self._recorder.failed(known, classify_report(error, self._recorder.limits.cooldown_s), purpose)
        await self._commit(_unchanged)

    async def report_success(self, provider: str, purpose: str) -> None:
        """Records an answer that a caller got. The first one after a change makes the provider preferred."""
        known = self._roster.require(provider)
        self._recorder.succeeded(known, purpose, began=self._clock.time(), prefer=True)
        await self._commit(_unchanged)

    async def _commit(self, change: Change) -> None:
        await self._shared.commit(change, self._timing.acknowledge_s)


def _unchanged(routing: rules.Routing) -> rules.Routing:
    return routing

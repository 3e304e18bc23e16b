"""Leases of probes: one request over all replicas asks a provider after its cooldown."""

import structlog

from core.clock import Clock
from core.redis.guard import RedisPatience
from services.llm.routing.events import Probed
from services.llm.routing.recorder import OutcomeRecorder
from services.llm.routing.roster import ProviderRoster
from services.llm.routing.state import changes, rules
from services.llm.routing.state.shared_state import SharedRouting
from services.llm.routing.timing import RoutingTiming

log = structlog.get_logger()


class ProbeLeases:
    """Takes and returns the leases of this replica's probes.

    Args:
        roster: the configured providers; a lease outlives the longest answer of its provider.
    """

    def __init__(
        self,
        roster: ProviderRoster,
        shared: SharedRouting,
        clock: Clock,
        timing: RoutingTiming,
        recorder: OutcomeRecorder,
    ) -> None:
        self.timing = timing
        self._roster = roster
        self._shared = shared
        self._clock = clock
        self._recorder = recorder
        self._count = 0

    async def take(self, provider: str, patience: RedisPatience) -> str | None:
        """Leases the probe of a half-open provider; returns the holder's name, None where another request has it.

        Args:
            provider: id of the provider.
            patience: of the request. One that has waited for a silent Redis does not probe: another replica may.
        """
        now = self._clock.time()
        if patience.is_spent or not self._is_due(provider, now):
            return None
        self._count += 1
        holder = f"{self._shared.replica}:{self._count}"
        lease_s = self._roster.require(provider).timeout_s + self.timing.lease_margin_s
        is_granted = False
        try:
            change = changes.probe_taken(provider, holder, now, lease_s)
            is_granted = await self._shared.commit(change, self.timing.lease_wait_s)
        finally:
            if not is_granted:
                patience.is_spent = True
                self.give_back(provider, holder)
        lease = self._shared.routing.probes.get(provider)
        return holder if lease is not None and lease.holder == holder else None

    def give_back(self, provider: str, holder: str) -> None:
        """Returns a lease without an outcome, so that the next request may probe."""
        self._shared.apply(changes.probe_returned(provider, holder))

    def note_asked(self, provider: str) -> None:
        """Reports a probe that is sent now."""
        log.info("provider.probed", provider=provider)
        self._recorder.publish(Probed(provider))

    def _is_due(self, provider: str, now: float) -> bool:
        routing = self._shared.routing
        return routing.phase(provider, now) is rules.CircuitPhase.HALF_OPEN and not routing.probing(provider, now)

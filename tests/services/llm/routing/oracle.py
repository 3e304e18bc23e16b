"""A second implementation of the routing rules: plain and slow, written from their description and not from the code.

The state machine compares the service with it. The description:

- A request asks first the provider that an admin forced, then the user's choice, then the preferred one, then the rest
  by priority; providers on trial come after healthy ones, and providers in cooldown last.
- The first answer after a change makes its provider preferred, for a fixed time. An answer counts only if its provider
  was asked by the order, no earlier candidate was skipped for a reason that lies in the request, and no healthy
  provider has a higher priority.
- A failure starts a cooldown; of two cooldowns the later end counts. A provider whose cooldown has ended is on trial
  until it answers: one request over all replicas tries it.
- A replica that is disconnected decides by its own knowledge. Its changes are applied again to the shared state when
  it is back (failures and admins' acts in any case, others if they had an effect), and if the shared state was lost,
  both are merged.
- What is learned about a model (a refused capability, the longest request, a rest) ends by itself; of two ends the
  later counts, a length is only lowered while it holds, and a reset forgets all of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

CLOCKS_DIFFER_BY = 5.0
"""An admin's act counts as older only if it is older by more than the tolerated clock skew."""


@dataclass(eq=False)
class Span:
    """A state of a provider with its start and end."""

    provider: str
    since: float
    until: float

    def lasts(self, now: float) -> bool:
        return now < self.until


@dataclass(eq=False)
class Lease:
    """The right to try a provider on trial."""

    holder: object
    until: float


@dataclass
class Known:
    """The state of the providers, as known to the connected replicas or to a disconnected one."""

    priority: Sequence[str]
    force: Span | None = None
    preference: Span | None = None
    cooldowns: dict[str, Span] = field(default_factory=dict[str, Span])
    leases: dict[str, Lease] = field(default_factory=dict[str, Lease])
    refusals: dict[tuple[str, str], float] = field(default_factory=dict[tuple[str, str], float])
    """The end of each refusal of a capability, by provider."""
    lengths: dict[str, tuple[int, int | None, float]] = field(default_factory=dict[str, tuple[int, int | None, float]])
    """The longest request of a provider's model, its window, and the end of both."""
    rests: dict[str, Span] = field(default_factory=dict[str, Span])
    """The rest of a provider's second model."""

    # Queries

    def is_cooling(self, provider: str, now: float) -> bool:
        return provider in self.cooldowns and self.cooldowns[provider].lasts(now)

    def is_on_trial(self, provider: str, now: float) -> bool:
        return provider in self.cooldowns and not self.cooldowns[provider].lasts(now)

    def is_well(self, provider: str) -> bool:
        return provider not in self.cooldowns

    def forced(self, now: float) -> str | None:
        return self.force.provider if self.force is not None and self.force.lasts(now) else None

    def preferred(self, now: float) -> str | None:
        if self.preference is None or not self.preference.lasts(now) or not self.is_well(self.preference.provider):
            return None
        return self.preference.provider

    def is_tried_by_somebody(self, provider: str, now: float) -> bool:
        return provider in self.leases and now < self.leases[provider].until

    def lateness(self, provider: str, now: float) -> tuple[int, float]:
        """Return the rank among the remaining candidates: healthy, then on trial, then cooling down."""
        if self.is_well(provider):
            return 0, 0.0
        return (2, self.cooldowns[provider].until) if self.is_cooling(provider, now) else (1, 0.0)

    def order(
        self, allowed: Sequence[str], now: float, choice: str | None = None, trial: str | None = None
    ) -> list[str]:
        """Return all allowed providers in order; `trial` is the provider that this request tries for all replicas."""
        wished = [self.forced(now), choice, trial, self.preferred(now)]
        well = [provider for provider in allowed if self.is_well(provider)]
        on_trial = [provider for provider in allowed if self.is_on_trial(provider, now)]
        cooling = [provider for provider in allowed if self.is_cooling(provider, now)]
        cooling.sort(key=lambda provider: self.cooldowns[provider].until)
        ordered: list[str] = []
        for provider in [*wished, *well, *on_trial, *cooling]:
            if provider in allowed and provider not in ordered:
                ordered.append(provider)
        return ordered

    def due_for_trial(self, allowed: Sequence[str], now: float, choice: str | None = None) -> str | None:
        """Return the provider on trial that would be asked first if it were healthy."""
        if self.forced(now) in allowed or choice in allowed:
            return None
        preferred = self.preferred(now) if self.preferred(now) in allowed else None
        above = list(allowed)
        if preferred is not None:
            above = above[: above.index(preferred)]
        else:
            for place, provider in enumerate(allowed):
                if self.is_well(provider):
                    above = above[:place]
                    break
        for provider in above:
            if self.is_on_trial(provider, now):
                return None if self.is_tried_by_somebody(provider, now) else provider
        return None

    def leads(self, provider: str) -> bool:
        """Return whether no healthy provider has a higher priority."""
        return not any(self.is_well(other) for other in self.priority[: self.priority.index(provider)])

    # Changes

    def is_forced_to(self, provider: str, now: float, seconds: float) -> None:
        if self.force is None or self.force.since <= now + CLOCKS_DIFFER_BY:
            self.force = Span(provider, now, now + seconds)

    def is_cleared(self, now: float) -> None:
        if self.force is not None and self.force.since <= now + CLOCKS_DIFFER_BY:
            self.force = None
        if self.preference is not None and self.preference.since <= now + CLOCKS_DIFFER_BY:
            self.preference = None

    def cools_down(self, provider: str, now: float, seconds: float) -> None:
        standing = self.cooldowns.get(provider)
        if standing is None or standing.until < now + seconds:
            self.cooldowns[provider] = Span(provider, now, now + seconds)
        if self.preference is not None and self.preference.provider == provider:
            self.preference = None
        self.leases.pop(provider, None)

    def answered(self, provider: str, began: float, now: float, preferred_for: float, *, counts: bool) -> None:
        if provider in self.cooldowns and self.cooldowns[provider].since > began:
            return
        preferred = self.preferred(now)
        was_on_record = self.cooldowns.pop(provider, None) is not None
        becomes = counts and (
            preferred is None
            or preferred not in self.priority
            or self.priority.index(provider) < self.priority.index(preferred)
        )
        if becomes:
            self.preference = Span(provider, now, now + preferred_for)
        if becomes or was_on_record:
            self.leases.pop(provider, None)

    def is_reset(self, provider: str, now: float) -> None:
        standing = self.cooldowns.get(provider)
        if standing is not None and standing.since > now + CLOCKS_DIFFER_BY:
            return
        self.cooldowns.pop(provider, None)
        self.leases.pop(provider, None)
        self.refusals = {key: until for key, until in self.refusals.items() if key[0] != provider}
        self.lengths.pop(provider, None)
        self.rests.pop(provider, None)
        preference = self.preference
        if preference is None or preference.since > now + CLOCKS_DIFFER_BY:
            return
        if self.priority.index(preference.provider) > self.priority.index(provider):
            self.preference = None

    def is_tried(self, provider: str, holder: object, now: float, seconds: float) -> None:
        if self.is_on_trial(provider, now) and not self.is_tried_by_somebody(provider, now):
            self.leases[provider] = Lease(holder, now + seconds)

    def is_given_back(self, provider: str, holder: object) -> None:
        if provider in self.leases and self.leases[provider].holder is holder:
            del self.leases[provider]

    # Models

    def without(self, provider: str, now: float) -> set[str]:
        return {name for (owner, name), until in self.refusals.items() if owner == provider and until > now}

    def length(self, provider: str, now: float) -> tuple[int | None, int | None]:
        longest, window, until = self.lengths.get(provider, (None, None, 0.0))
        return (longest, window) if until > now else (None, None)

    def refuses(self, provider: str, capability: str, now: float, seconds: float) -> None:
        key = (provider, capability)
        self.refusals[key] = max(self.refusals.get(key, 0.0), now + seconds)

    def takes_at_most(self, provider: str, longest: int, window: int | None, now: float, seconds: float) -> None:
        before, known_window = self.length(provider, now)
        if before is not None:
            longest, window = min(longest, before), window or known_window
        self.lengths[provider] = (longest, window, now + seconds)

    def rests_model(self, provider: str, now: float, seconds: float) -> None:
        if provider not in self.rests or self.rests[provider].until < now + seconds:
            # A write drops the rests that have ended by the writer's clock, also for a replica whose clock is behind.
            kept = {name: span for name, span in self.rests.items() if span.lasts(now)}
            self.rests = {**kept, provider: Span(provider, now, now + seconds)}

    def wakes_model(self, provider: str, began: float) -> None:
        if provider in self.rests and self.rests[provider].since <= began:
            del self.rests[provider]

    # Merging

    def copied(self) -> "Known":
        return Known(
            self.priority, self.force, self.preference, dict(self.cooldowns), dict(self.leases), dict(self.refusals),
            dict(self.lengths), dict(self.rests),
        )  # fmt: skip

    def learns(self, other: "Known") -> None:
        """Merge: the newer force, the later end of each cooldown, and the entries that only the other has."""
        if other.force is not None and (self.force is None or self.force.since < other.force.since):
            self.force = other.force
        if self.preference is None:
            self.preference = other.preference
        for provider, cooldown in other.cooldowns.items():
            if provider not in self.cooldowns or self.cooldowns[provider].until < cooldown.until:
                self.cooldowns[provider] = cooldown
        self.leases = {**other.leases, **self.leases}
        for key, until in other.refusals.items():
            self.refusals[key] = max(self.refusals.get(key, 0.0), until)
        for provider, length in other.lengths.items():
            if provider not in self.lengths or self.lengths[provider][2] < length[2]:
                self.lengths[provider] = length
        for provider, rest in other.rests.items():
            if provider not in self.rests or self.rests[provider].until < rest.until:
                self.rests[provider] = rest


Deed = Callable[[Known], None]


class World:
    """The knowledge of the connected replicas, and of each disconnected one."""

    def __init__(self, priority: Sequence[str]) -> None:
        self._priority = priority
        self._shared = Known(priority)
        self._alone: dict[int, Known] = {}
        self._deeds: dict[int, list[Deed]] = {}
        self._lost_by: dict[int, bool] = {}

    def known_to(self, replica: int) -> Known:
        return self._alone.get(replica, self._shared)

    def is_cut_off(self, replica: int) -> bool:
        return replica in self._alone

    def do(self, replica: int, deed: Deed, *, always: bool = False) -> None:
        """Apply a change at a replica; it is passed on if it had an effect, or `always`."""
        known = self.known_to(replica)
        before = known.copied()
        deed(known)
        if replica in self._alone and (always or known != before):
            self._deeds[replica].append(deed)

    def cut_off(self, replica: int) -> None:
        self._alone[replica] = self._shared.copied()
        self._deeds[replica] = []
        self._lost_by[replica] = False

    def wipe(self) -> None:
        """Lose the data of Redis while no replica reaches it."""
        self._shared = Known(self._priority)
        self._lost_by = dict.fromkeys(self._alone, True)

    def reconnect(self, replica: int) -> None:
        alone = self._alone.pop(replica)
        if self._lost_by.pop(replica):
            self._shared.learns(alone)
        for deed in self._deeds.pop(replica):
            deed(self._shared)

    def restart(self, replica: int) -> None:
        """Start a new process; without Redis it knows nothing."""
        if replica in self._alone:
            self._alone[replica] = Known(self._priority)
            self._deeds[replica] = []
            self._lost_by[replica] = False

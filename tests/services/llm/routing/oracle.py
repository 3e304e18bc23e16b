"""The rules of the fallback service once more: plain and slow, written from their description and not from the code.

The state machine compares the service with this. What it says in the words of the description:

- Asked first: whom an admin forced, then whom the user picked, then the preferred one, then the rest by priority; who
  cools down comes last, the one that is free first before the others.
- The first success after a change makes a preference, which ends when it was to end. An answer only says something
  about the order if its provider stands there by the order, nobody before it was passed over for a reason that lies in
  the request, and nobody healthy stands above it.
- A failure cools a provider down; of two cooldowns the later end counts. Whose cooldown has ended is on trial until it
  has answered: one request asks it, the others stay with those who are well.
- Whoever cannot reach the others decides by what it knows. What happened there is done again on what they know when it
  is back (failures and what admins did in any case, the rest where it changed anything), and if they lost everything,
  what it knows is put together with what they know.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

CLOCKS_DIFFER_BY = 5.0
"""An admin's act is only taken for older than something if it is older by more than clocks may differ."""


@dataclass(eq=False)
class Span:
    """Something about a provider that began at one instant and ends at another."""

    provider: str
    since: float
    until: float

    def lasts(self, now: float) -> bool:
        return now < self.until


@dataclass(eq=False)
class Lease:
    """The right to try a provider whose cooldown has ended."""

    holder: object
    until: float


@dataclass
class Known:
    """What is known about the providers: by all who can reach each other, or by one alone."""

    priority: Sequence[str]
    force: Span | None = None
    preference: Span | None = None
    cooldowns: dict[str, Span] = field(default_factory=dict[str, Span])
    leases: dict[str, Lease] = field(default_factory=dict[str, Lease])

    # What can be asked

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
        """How late it is asked of those who are left: the well, then those on trial, then those who cool down."""
        if self.is_well(provider):
            return 0, 0.0
        return (2, self.cooldowns[provider].until) if self.is_cooling(provider, now) else (1, 0.0)

    def order(
        self, allowed: Sequence[str], now: float, choice: str | None = None, trial: str | None = None
    ) -> list[str]:
        """Everybody who may be asked, in that order; `trial` is whom this request may try for all."""
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
        """Whom the next request should try: who would be asked first if it were well, and is on trial."""
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
        """Whether nobody who is well stands above."""
        return not any(self.is_well(other) for other in self.priority[: self.priority.index(provider)])

    # What happens

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

    # How what one knows and what the others know come together

    def copied(self) -> "Known":
        return Known(self.priority, self.force, self.preference, dict(self.cooldowns), dict(self.leases))

    def learns(self, other: "Known") -> None:
        """The newer force, the later end of each cooldown, and whatever is only known to the other."""
        if other.force is not None and (self.force is None or self.force.since < other.force.since):
            self.force = other.force
        if self.preference is None:
            self.preference = other.preference
        for provider, cooldown in other.cooldowns.items():
            if provider not in self.cooldowns or self.cooldowns[provider].until < cooldown.until:
                self.cooldowns[provider] = cooldown
        self.leases = {**other.leases, **self.leases}


Deed = Callable[[Known], None]


class World:
    """What the replicas know who reach each other through Redis, and what each knows that is cut off."""

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
        """Something happened at this replica; the others have to know of it if it changed anything, or `always`."""
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
        """Redis loses everything while nobody reaches it."""
        self._shared = Known(self._priority)
        self._lost_by = dict.fromkeys(self._alone, True)

    def reconnect(self, replica: int) -> None:
        alone = self._alone.pop(replica)
        if self._lost_by.pop(replica):
            self._shared.learns(alone)
        for deed in self._deeds.pop(replica):
            deed(self._shared)

    def restart(self, replica: int) -> None:
        """A new process: if it does not reach Redis it knows nothing."""
        if replica in self._alone:
            self._alone[replica] = Known(self._priority)
            self._deeds[replica] = []
            self._lost_by[replica] = False

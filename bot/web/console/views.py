"""Values that the templates show, made from the services' states."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo

from core.durations import format_duration
from services.llm.routing.status import ProviderState, ProviderStatus, ServiceStatus, percentile_95
from services.usage.totals import UsageTotal


@dataclass(frozen=True, slots=True)
class Look:
    """The class, icon and text of a provider's state."""

    css: str
    icon: str
    key: str


_LOOKS = {
    ProviderState.FORCED: Look("forced", "i-forced", "web-state-forced"),
    ProviderState.PREFERRED: Look("ok", "i-ok", "web-state-stands-by"),
    ProviderState.HEALTHY: Look("ok", "i-ok", "web-state-stands-by"),
    ProviderState.PROBING: Look("cool", "i-probe", "web-state-probing"),
    ProviderState.HALF_OPEN: Look("cool", "i-probe", "web-state-half-open"),
    ProviderState.COOLING: Look("cool", "i-cool", "web-state-cooling"),
    ProviderState.NOT_CONFIGURED: Look("off", "i-off", "web-state-not-configured"),
}
_ANSWERS = Look("live", "i-live", "web-state-answers")
_WELL = frozenset({ProviderState.PREFERRED, ProviderState.HEALTHY})


@dataclass(frozen=True, slots=True)
class ProviderView:
    """One provider on the overview and in the list.

    Args:
        position: from 1, by priority.
        left: the time until its state ends, in words; empty if it has no end.
        first_output: seconds, as median and 95th percentile; None before the first answer.
        today: usage over all replicas; None while the database does not answer.
    """

    id: str
    position: int
    look: Look
    status: ProviderStatus
    left: str
    is_remote: bool
    key_source: str | None
    first_output: tuple[str, str] | None
    today: UsageTotal | None

    @property
    def can_answer(self) -> bool:
        """True if it is configured."""
        return self.status.state is not ProviderState.NOT_CONFIGURED

    @property
    def is_forced(self) -> bool:
        """True if an operator forced it."""
        return self.status.state is ProviderState.FORCED

    @property
    def is_resting(self) -> bool:
        """True if it is asked last until a cooldown ends, or its probe succeeds."""
        return self.status.state in {ProviderState.COOLING, ProviderState.HALF_OPEN, ProviderState.PROBING}


def provider_views(
    status: ServiceStatus,
    order: Sequence[str],
    remote: Mapping[str, bool],
    key_sources: Mapping[str, str | None],
    today: Mapping[str, UsageTotal] | None,
    now: float,
) -> list[ProviderView]:
    """Returns all providers by priority.

    Args:
        order: ids in the order of the next request; the first one answers it.
        now: seconds since the epoch.
    """
    first = order[0] if order else None
    return [
        ProviderView(
            id=each.provider,
            position=position,
            look=_ANSWERS if each.provider == first and each.state in _WELL else _LOOKS[each.state],
            status=each,
            left=format_duration(each.until - now) if each.until is not None else "",
            is_remote=remote[each.provider],
            key_source=key_sources.get(each.provider),
            first_output=_first_output(each.first_output_s),
            today=None if today is None else today.get(each.provider, UsageTotal()),
        )
        for position, each in enumerate(status.providers, start=1)
    ]


def clock_time(at: float, now: float, zone: tzinfo) -> str:
    """Formats an instant: the time of day, with the date unless it is today's."""
    moment, today = datetime.fromtimestamp(at, zone), datetime.fromtimestamp(now, zone).date()
    return moment.strftime("%H:%M" if moment.date() == today else "%Y-%m-%d %H:%M")


def _first_output(seconds: Sequence[float]) -> tuple[str, str] | None:
    if not seconds:
        return None
    return f"{statistics.median(seconds):.2f}", f"{percentile_95(seconds):.2f}"

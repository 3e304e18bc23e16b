"""Values that the templates show, made from the services' states."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Final

from bot.web.console.frame.parts import ConsoleParts
from core.config.providers import ProviderSettings, variable_prefix
from services.llm.routing.faults.refusal_words import Fault
from services.llm.routing.status import ProviderState, ProviderStatus, ServiceStatus, percentile_95
from services.usage.totals import UsageTotal


@dataclass(frozen=True, slots=True)
class Look:
    """The class, icon and text of a provider's state."""

    css: str
    icon: str
    key: str


SOON_S: Final = 20 * 3600.0
"""Times less than this away are shown without a date."""
_COOLING = Look("cool", "i-cool", "web-state-cooling")
_LOOKS = {
    ProviderState.FORCED: Look("forced", "i-forced", "web-state-forced"),
    ProviderState.PREFERRED: Look("ok", "i-ok", "web-state-stands-by"),
    ProviderState.HEALTHY: Look("ok", "i-ok", "web-state-stands-by"),
    ProviderState.PROBING: Look("cool", "i-probe", "web-state-probing"),
    ProviderState.HALF_OPEN: Look("cool", "i-probe", "web-state-half-open"),
    ProviderState.COOLING: _COOLING,
    ProviderState.NOT_CONFIGURED: Look("off", "i-off", "web-state-not-configured"),
}
_ANSWERS = Look("live", "i-live", "web-state-answers")
_OVER_CAP = Look("off", "i-cap", "web-state-over-cap")
_CAUSES = {
    Fault.HICCUP: Look("cool", "i-cool", "web-cause-errors"),
    Fault.DOWN: Look("cool", "i-cool", "web-cause-down"),
    Fault.LOADING: Look("cool", "i-cool", "web-cause-loading"),
    Fault.RATE_LIMITED: Look("cool", "i-cool", "web-cause-quota"),
    Fault.UNREADABLE: Look("cool", "i-cool", "web-cause-unreadable"),
    Fault.MODEL_GONE: Look("fail", "i-fail", "web-cause-model"),
    Fault.MISCONFIGURED: Look("fail", "i-fail", "web-cause-settings"),
}
_MISCONFIGURED = {
    "HTTP 401": Look("fail", "i-fail", "web-cause-key"),
    "HTTP 403": Look("fail", "i-fail", "web-cause-key"),
    "HTTP 402": Look("fail", "i-fail", "web-cause-account"),
    "HTTP 429": Look("fail", "i-fail", "web-cause-account"),
}
"""Looks by the beginning of the reason. Some servers refuse an empty account with 429 and a code of its own."""
_ENDING = frozenset({ProviderState.FORCED, ProviderState.COOLING})
"""States shown with their end."""
_WELL = frozenset({ProviderState.PREFERRED, ProviderState.HEALTHY})


@dataclass(frozen=True, slots=True)
class ProviderView:
    """One provider on the overview and in the list.

    Args:
        position: rank by priority, from 1.
        until: the time of day at which its force or cooldown ends; empty if it has no end.
        first_output: seconds, as median and 95th percentile; None before the first answer.
        today: usage over all replicas; None while the database does not answer.
    """

    id: str
    position: int
    look: Look
    status: ProviderStatus
    until: str
    is_remote: bool
    key_source: str | None
    first_output: tuple[str, str] | None
    today: UsageTotal | None

    @property
    def can_answer(self) -> bool:
        """True if it is configured."""
        return self.status.state is not ProviderState.NOT_CONFIGURED

    @property
    def is_over_cap(self) -> bool:
        """True if it is skipped because today's spending has reached its cap."""
        return self.look is _OVER_CAP

    @property
    def needs_operator(self) -> bool:
        """True if its key, account, model or address is at fault."""
        return self.is_resting and self.look.css == "fail"

    @property
    def needs_attention(self) -> bool:
        """True if it is left out, over its cap, or resting with the words of its server."""
        is_failing = self.is_resting and (self.needs_operator or self.status.last_words is not None)
        return not self.can_answer or self.is_over_cap or is_failing

    @property
    def is_forced(self) -> bool:
        """True if an operator forced it."""
        return self.status.state is ProviderState.FORCED

    @property
    def is_resting(self) -> bool:
        """True if it is asked last until a cooldown ends, or its probe succeeds."""
        return self.status.state in {ProviderState.COOLING, ProviderState.HALF_OPEN, ProviderState.PROBING}


@dataclass(frozen=True, slots=True)
class ProviderFacts:
    """Facts that the views are made from.

    Args:
        order: ids in the order of the next request.
        configured: providers by id.
        key_sources: source of each API key.
        today: usage over all replicas by provider; None while the database does not answer.
        now: seconds since the epoch.
        zone: time zone of displayed times.
    """

    order: Sequence[str]
    configured: Mapping[str, ProviderSettings]
    key_sources: Mapping[str, str | None]
    today: Mapping[str, UsageTotal] | None
    now: float
    zone: tzinfo


def provider_views(status: ServiceStatus, facts: ProviderFacts) -> list[ProviderView]:
    """Returns all providers by priority, the first that is not over its cap as the answering one."""
    used = {each.provider: (facts.today or {}).get(each.provider, UsageTotal()) for each in status.providers}
    caps = {name: each.budget_day_usd for name, each in facts.configured.items()}
    over = {name for name, total in used.items() if (cap := caps.get(name)) is not None and total.cost_usd >= cap}
    first = next((name for name in facts.order if name not in over), None)
    return [
        ProviderView(
            id=each.provider,
            position=position,
            look=_look(each, is_first=each.provider == first, is_over=each.provider in over),
            status=each,
            until=_end_time(each.until, facts.now, facts.zone)
            if each.until is not None and each.state in _ENDING
            else "",
            is_remote=facts.configured[each.provider].remote,
            key_source=facts.key_sources.get(each.provider),
            first_output=_first_output(each.first_output_s),
            today=None if facts.today is None else used[each.provider],
        )
        for position, each in enumerate(status.providers, start=1)
    ]


async def read_views(parts: ConsoleParts) -> list[ProviderView]:
    """Returns all providers with their usage of today."""
    configured = {each.id: each for each in parts.configuration.current.providers}
    sources = {
        name: parts.configuration.source(f"{variable_prefix(name)}API_KEY").value
        for name, each in configured.items()
        if each.api_key is not None
    }
    today, now = await parts.admin.usage_today(), parts.clock.time()
    facts = ProviderFacts(parts.fallback.order(), configured, sources, today, now, parts.settings.zone)
    return provider_views(parts.admin.status, facts)


def read_strip(parts: ConsoleParts) -> Sequence[ProviderView]:
    """Returns the providers of the strip as they are now."""
    configured = {each.id: each for each in parts.configuration.current.providers}
    facts = ProviderFacts(parts.fallback.order(), configured, {}, None, parts.clock.time(), parts.settings.zone)
    return strip_views(parts.admin.status, facts)


def strip_views(status: ServiceStatus, facts: ProviderFacts) -> list[ProviderView]:
    """Returns the providers of the strip on top of the pages: answering, next on standby, most in need of attention."""
    ranks = {name: rank for rank, name in enumerate(facts.order)}
    views = sorted(provider_views(status, facts), key=lambda view: ranks.get(view.id, len(ranks)))
    answering = [view for view in views if view.id in ranks][:1]
    rest = [view for view in views if view not in answering]
    standby = [view for view in rest if view.status.state in _WELL][:1]
    trouble = sorted(
        (view for view in rest if view.status.state not in _WELL), key=lambda view: not view.needs_operator
    )
    return [*answering, *standby, *trouble[:1]]


def _look(status: ProviderStatus, *, is_first: bool, is_over: bool) -> Look:
    if is_over and status.state is not ProviderState.NOT_CONFIGURED:
        return _OVER_CAP
    if status.state is ProviderState.COOLING and status.fault is not None:
        begins = next((look for text, look in _MISCONFIGURED.items() if (status.reason or "").startswith(text)), None)
        if status.fault is Fault.MISCONFIGURED and begins is not None:
            return begins
        return _CAUSES.get(status.fault, _COOLING)
    return _ANSWERS if is_first and status.state in _WELL else _LOOKS[status.state]


def clock_time(at: float, now: float, zone: tzinfo) -> str:
    """Formats an instant: the time of day, with the date unless it is today's."""
    moment, today = datetime.fromtimestamp(at, zone), datetime.fromtimestamp(now, zone).date()
    return moment.strftime("%H:%M" if moment.date() == today else "%Y-%m-%d %H:%M")


def _end_time(at: float, now: float, zone: tzinfo) -> str:
    """Formats the end of a state: the time of day alone for the next hours, past midnight too."""
    return f"{datetime.fromtimestamp(at, zone):%H:%M}" if at - now < SOON_S else clock_time(at, now, zone)


def _first_output(seconds: Sequence[float]) -> tuple[str, str] | None:
    if not seconds:
        return None
    return f"{statistics.median(seconds):.2f}", f"{percentile_95(seconds):.2f}"

"""The table of `/provider`: a few lines of plain text per provider, for a phone and a terminal."""

import math
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, tzinfo

from bot.operators.capabilities import describe_limits
from bot.operators.formatting import format_count, format_operator_cost
from core.durations import format_duration
from services.llm.routing.status import ProviderState, ProviderStatus, ServiceStatus, percentile_95
from services.usage.totals import UsageTotal

REDIS_UNAVAILABLE = (
    "Redis does not answer: this replica uses its own state, and the others see its changes only once Redis is back."
)
DATABASE_UNAVAILABLE = (
    "The database does not answer: requests are counted since this process started, and costs are unknown."
)


def provider_table(
    status: ServiceStatus, now: float, today: Mapping[str, UsageTotal] | None = None, zone: tzinfo = UTC
) -> str:
    """Formats all providers in order of priority.

    Args:
        now: seconds since the epoch.
        today: usage of all replicas per provider; None while the database is unavailable.
        zone: of the instants that are shown.
    """
    blocks = [
        "\n   ".join([*_format_provider(number, provider, now, today, zone), *_format_models(provider, now, zone)])
        for number, provider in enumerate(status.providers, start=1)
    ]
    if not blocks:
        blocks = ["No provider is listed in AVAILABLE_PROVIDERS."]
    if not status.shared:
        blocks.append(REDIS_UNAVAILABLE)
    if today is None:
        title = "Providers by priority; counts cover this process."
    else:
        covered = f"today ({zone_name(now, zone)}) covers all replicas"
        title = f"Providers by priority; {covered}, other counts cover this process."
    return "\n\n".join([title, *blocks])


def format_until(until: float, now: float, zone: tzinfo = UTC) -> str:
    """Formats an instant and the time until then: `until 14:05 UTC (4m 20s left)`."""
    # Rounded up like the time left: at the displayed minute it is over.
    instant = datetime.fromtimestamp(math.ceil(until / 60) * 60, zone)
    same_day = instant.date() == datetime.fromtimestamp(now, zone).date()
    shown = instant.strftime("%H:%M %Z" if same_day else "%Y-%m-%d %H:%M %Z")
    return f"until {shown} ({format_duration(until - now)} left)"


def zone_name(now: float, zone: tzinfo) -> str:
    """Returns the abbreviation of a time zone at `now`, such as CET."""
    return datetime.fromtimestamp(now, zone).strftime("%Z")


def _format_provider(
    number: int, provider: ProviderStatus, now: float, today: Mapping[str, UsageTotal] | None, zone: tzinfo
) -> list[str]:
    lines = [
        f"{number}. {provider.provider}: {_format_state(provider, now, zone)}",
        f"models: {', '.join(provider.models)}",
    ]
    if today is not None and (used := today.get(provider.provider)) is not None:
        counted = f"{format_count(used.requests, 'request')}, {used.failures} failed"
        lines.append(f"today: {counted}, {format_operator_cost(used)}")
    elif today is None and provider.requests:
        lines.append(f"{format_count(provider.requests, 'request')}, {provider.failures} failed")
    if provider.limit is not None:
        lines.append(f"in flight: {provider.in_flight}, limit over all replicas: {provider.limit}")
    elif provider.in_flight:
        lines.append(f"in flight: {provider.in_flight}")
    if provider.first_output_s:
        lines.append(f"first output: {_format_latency(provider.first_output_s)}")
    if provider.last_error is not None and provider.last_error != provider.reason:
        lines.append(f"last error: {provider.last_error}")
    if provider.last_words is not None:
        lines.append(f'it said: "{provider.last_words}"')
    return lines


def _format_models(provider: ProviderStatus, now: float, zone: tzinfo) -> list[str]:
    """Returns a line for each model that rests, and one for each that was found to refuse something."""
    resting = [f"{each.model} rests {format_until(each.until, now, zone)}: {each.reason}" for each in provider.resting]
    return [*resting, *map(describe_limits, provider.limits)]


def _format_state(provider: ProviderStatus, now: float, zone: tzinfo) -> str:
    until = f" {format_until(provider.until, now, zone)}" if provider.until is not None else ""
    reason = f": {provider.reason}" if provider.reason is not None else ""
    match provider.state:
        case ProviderState.HEALTHY:
            return "healthy"
        case ProviderState.PREFERRED:
            return f"preferred{until}"
        case ProviderState.FORCED:
            return f"forced{until}"
        case ProviderState.COOLING:
            return f"cooling down{until}{reason}"
        case ProviderState.PROBING:
            return f"being probed{reason}"
        case ProviderState.HALF_OPEN:
            return f"half-open, to be probed next{reason}"
        case ProviderState.NOT_CONFIGURED:
            return f"not configured{reason}"


def _format_latency(seconds: Sequence[float]) -> str:
    if len(seconds) == 1:
        return f"{seconds[0]:.2f} s (once)"
    return f"median {statistics.median(seconds):.2f} s, 95% within {percentile_95(seconds):.2f} s"

"""The table of `/provider`: a few lines of plain text per provider, with the capabilities that its models lack."""

import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, tzinfo

from bot.operators.formatting import Wording
from core.i18n import Texts
from services.llm.models.trial import TESTED, TrialResult
from services.llm.request import Capability
from services.llm.routing.state.rules import ModelLimits
from services.llm.routing.status import ProviderState, ProviderStatus, ServiceStatus, percentile_95
from services.usage.totals import UsageTotal

_REASONED = frozenset(
    {ProviderState.COOLING, ProviderState.PROBING, ProviderState.HALF_OPEN, ProviderState.NOT_CONFIGURED}
)
_TIMED = frozenset({ProviderState.PREFERRED, ProviderState.FORCED, ProviderState.COOLING})
_KNOWN = frozenset(each.value for each in Capability)


def provider_table(
    status: ServiceStatus,
    now: float,
    today: Mapping[str, UsageTotal] | None = None,
    zone: tzinfo = UTC,
    words: Wording | None = None,
) -> str:
    """Formats all providers in order of priority.

    Args:
        now: seconds since the epoch.
        today: usage of all replicas per provider; None while the database is unavailable.
        zone: of the instants that are shown.
        words: of the reader's language; None for English.
    """
    words = words or Wording(Texts())
    blocks = [
        "\n   ".join(
            [*_format_provider(number, provider, now, today, zone, words), *_format_models(provider, now, zone, words)]
        )
        for number, provider in enumerate(status.providers, start=1)
    ]
    if not blocks:
        blocks = [words.get("operator-no-provider")]
    if not status.shared:
        blocks.append(words.get("operator-redis-gone"))
    if today is None:
        title = words.get("operator-title-process")
    else:
        title = words.get("operator-title", zone=zone_name(now, zone))
    return "\n\n".join([title, *blocks])


def capability_tables(statuses: Mapping[str, ServiceStatus], now: float, zone: tzinfo, words: Wording) -> list[str]:
    """Formats the providers of each capability beside chat, whose health is its own; counts are of this process."""
    tables: list[str] = []
    for name, status in statuses.items():
        rows = [
            "\n   ".join(
                [*_format_provider(number, each, now, None, zone, words), *_format_models(each, now, zone, words)]
            )
            for number, each in enumerate(status.providers, start=1)
        ]
        tables.append("\n".join([words.get(f"operator-capability-{name}"), *rows]))
    return tables


def zone_name(now: float, zone: tzinfo) -> str:
    """Returns the abbreviation of a time zone at `now`, such as CET."""
    return datetime.fromtimestamp(now, zone).strftime("%Z")


def _format_provider(
    number: int,
    provider: ProviderStatus,
    now: float,
    today: Mapping[str, UsageTotal] | None,
    zone: tzinfo,
    words: Wording,
) -> list[str]:
    lines = [
        f"{number}. {provider.provider}: {_format_state(provider, now, zone, words)}",
        words.get("operator-models", models=", ".join(provider.models)),
    ]
    if today is not None and (used := today.get(provider.provider)) is not None:
        counted = words.requests(used.requests, used.failures)
        lines.append(words.get("operator-today", counted=counted, cost=words.cost(used)))
    elif today is None and provider.requests:
        lines.append(words.requests(provider.requests, provider.failures))
    if provider.limit is not None:
        lines.append(words.get("operator-in-flight-limit", count=provider.in_flight, limit=provider.limit))
    elif provider.in_flight:
        lines.append(words.get("operator-in-flight", count=provider.in_flight))
    if provider.first_output_s:
        lines.append(words.get("operator-first-output", latency=_format_latency(provider.first_output_s, words)))
    if provider.last_error is not None and provider.last_error != provider.reason:
        lines.append(words.get("operator-last-error", error=provider.last_error))
    if provider.last_words is not None:
        lines.append(words.get("operator-it-said", words=provider.last_words))
    return lines


def _format_models(provider: ProviderStatus, now: float, zone: tzinfo, words: Wording) -> list[str]:
    """Returns a line for each model that rests, and one for each that was found to refuse something."""
    resting = [
        words.get("operator-rests", model=each.model, until=words.until(each.until, now, zone), reason=each.reason)
        for each in provider.resting
    ]
    return [*resting, *(describe_limits(each, words) for each in provider.limits)]


def _format_state(provider: ProviderStatus, now: float, zone: tzinfo, words: Wording) -> str:
    state = provider.state
    shown = words.get(f"operator-state-{state.value.replace('_', '-')}")
    if state in _TIMED and provider.until is not None:
        shown += f" {words.until(provider.until, now, zone)}"
    return f"{shown}: {provider.reason}" if state in _REASONED and provider.reason is not None else shown


def _format_latency(seconds: Sequence[float], words: Wording) -> str:
    if len(seconds) == 1:
        return words.get("operator-latency-once", seconds=f"{seconds[0]:.2f}")
    median, slowest = f"{statistics.median(seconds):.2f}", f"{percentile_95(seconds):.2f}"
    return words.get("operator-latency", median=median, slowest=slowest)


def describe_limits(limits: ModelLimits, words: Wording) -> str:
    """Returns the learned refusals of a model: `m works without tools; its window is 4,096 tokens`."""
    facts: list[str] = []
    if limits.refused:
        # A newer version may have learned of a capability that this one does not know.
        known = sorted(words.get(f"without-{name}") if name in _KNOWN else name for name in limits.refused)
        facts.append(words.get("operator-works-without", refused=words.join(known)))
    if limits.window is not None:
        facts.append(words.get("operator-window", tokens=limits.window))
    elif limits.max_input is not None:
        facts.append(words.get("operator-max-input", tokens=limits.max_input))
    return f"{limits.model} {'; '.join(facts)}"


def describe_trial(trial: TrialResult, words: Wording) -> str:
    """Returns the model, its time and each capability: `m answered in 40 ms: stream, no tools, system message`."""
    found = [words.get(f"tested-{'no-' if each in trial.refused else ''}{each.value}") for each in TESTED]
    time = f"{trial.took_s * 1000:.0f}"
    return words.get("operator-trial", model=trial.model, time=time, found=", ".join(found))


def describe_refusals(provider_id: str, trial: TrialResult, words: Wording) -> list[str]:
    """Returns a line for each capability that the model does without."""
    prefix = f"{provider_id}: " if provider_id else ""
    return [
        prefix
        + words.get(
            "operator-asked-without",
            model=trial.model,
            capability=words.get(f"without-{capability.value}"),
            refusal=str(refusal),
        )
        for capability, refusal in sorted(trial.refused.items())
    ]

"""`/provider`: parses the command, and words its result and the table of providers for operators."""

import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo

from bot.operators.formatting import Wording
from core.clock import Clock
from core.config.providers import ProviderSettings
from core.durations import format_duration, parse_duration
from core.i18n import Texts
from services.admin.providers import FORCE_S, ActRecord, ProviderAdmin
from services.llm.models.trial import TESTED, TrialResult
from services.llm.request import Capability
from services.llm.routing.faults.refusal_words import Fault
from services.llm.routing.state.rules import ModelLimits
from services.llm.routing.status import ProviderState, ProviderStatus, ServiceStatus, percentile_95
from services.usage.totals import UsageTotal

_REASONED = frozenset(
    {ProviderState.COOLING, ProviderState.PROBING, ProviderState.HALF_OPEN, ProviderState.NOT_CONFIGURED}
)
_TIMED = frozenset({ProviderState.PREFERRED, ProviderState.FORCED, ProviderState.COOLING})
_KNOWN = frozenset(each.value for each in Capability)
Act = Callable[[ProviderSettings], Awaitable[str]]


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
        zone: time zone of displayed times.
        words: texts in the reader's language; None for English.
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
    """Formats the providers of each capability beside chat, with the counts of this process."""
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


class ProviderCommands:
    """The `/provider` command of Telegram and the console.

    Args:
        zone: time zone of displayed times.
        texts: texts in all languages; each call names that of its reader.
    """

    def __init__(self, admin: ProviderAdmin, clock: Clock, zone: tzinfo = UTC, texts: Texts | None = None) -> None:
        self._admin = admin
        self._clock = clock
        self._zone = zone
        self._texts = texts or Texts()

    def syntax(self, words: Wording) -> str:
        """Returns the syntax of the command, and the configured providers."""
        known = ", ".join(status.provider for status in self._admin.status.providers) or words.get("operator-none")
        return words.get(
            "operator-provider-usage",
            force=format_duration(FORCE_S),
            cooldown=format_duration(self._admin.default_cooldown_s),
            known=known,
        )

    async def run(self, arguments: str, actor_id: int, language: str | None = None) -> str:
        """Runs the command and returns its result as text.

        Args:
            arguments: empty for the table, or `force`, `clear`, `test`, `cooldown` or `reset` with theirs.
            actor_id: id recorded in the audit log.
            language: IETF tag of the reader's language.
        """
        written, say = arguments.split(), Wording(self._texts, language)
        match [word.lower() for word in written[:1]], written[1:]:
            case [[], []]:
                return await self.overview(language)
            case [["clear"], []]:
                return self._with_warnings("operator-cleared", await self._admin.clear(actor_id), say)
            case [["test"], [name]]:
                return await self._with_provider(name, say, lambda provider: self._test(provider, actor_id, say))
            case [["reset"], [name]]:
                return await self._with_provider(name, say, lambda provider: self._reset(provider, actor_id, say))
            case [["force" | "cooldown" as verb], [name, *duration]]:
                # "10 m" is as good as "10m".
                seconds = parse_duration("".join(duration)) if duration else None
                if duration and seconds is None:
                    return f"{say.get('operator-no-duration')} {self.syntax(say)}"
                act = self._force if verb == "force" else self._cooldown
                return await self._with_provider(name, say, lambda provider: act(provider, actor_id, seconds, say))
            case _:
                return self.syntax(say)

    async def overview(self, language: str | None = None) -> str:
        """Returns the table of providers, with the usage of today where the database is available."""
        today, say = await self._admin.usage_today(), Wording(self._texts, language)
        table = provider_table(self._admin.status, self._clock.time(), today, self._zone, say)
        beside_chat = capability_tables(self._admin.status_beside_chat, self._clock.time(), self._zone, say)
        notes = [] if today is not None else [say.get("operator-database-gone")]
        return "\n\n".join([table, *beside_chat, *notes])

    def _until(self, instant: float, say: Wording) -> str:
        return say.until(instant, self._clock.time(), self._zone)

    async def _with_provider(self, name: str, say: Wording, act: Act) -> str:
        provider = self._admin.find(name)
        if provider is not None:
            return await act(provider)
        status = self._admin.find_status(name)
        if status is not None:
            return say.get("operator-not-configured", provider=status.provider, reason=status.reason or "")
        return f"{say.get('operator-no-such-provider')} {self.syntax(say)}"

    async def _force(self, provider: ProviderSettings, actor_id: int, seconds: float | None, say: Wording) -> str:
        act = await self._admin.force(provider, actor_id, seconds)
        until = self._until(self._clock.time() + act.seconds, say)
        return self._with_warnings("operator-forced", act.record, say, provider=provider.id, until=until)

    async def _cooldown(self, provider: ProviderSettings, actor_id: int, seconds: float | None, say: Wording) -> str:
        act = await self._admin.cooldown(provider, actor_id, seconds)
        status = act.status
        if status.state is ProviderState.FORCED and status.until is not None:
            key, end = "operator-cools-forced", status.until
        elif status.state is ProviderState.COOLING and status.until:
            key, end = "operator-cools", status.until
        else:
            key, end = "operator-cools", self._clock.time() + act.seconds
        return self._with_warnings(key, act.record, say, provider=provider.id, until=self._until(end, say))

    async def _reset(self, provider: ProviderSettings, actor_id: int, say: Wording) -> str:
        act = await self._admin.reset(provider, actor_id)
        return self._with_warnings("operator-reset", act.record, say, provider=provider.id)

    async def _test(self, provider: ProviderSettings, actor_id: int, say: Wording) -> str:
        test = await self._admin.test(provider, actor_id)
        result, failure = test.result, test.result.failure
        if failure is not None:
            misconfigured = failure.outcome.fault is Fault.MISCONFIGURED
            reason = f"{failure}{say.get('operator-key-hint') if misconfigured else ''}"
            time = f"{result.took_s * 1000:.0f}"
            arguments = {"provider": provider.id, "model": result.model, "reason": reason, "time": time}
            return self._with_warnings("operator-fails", test.record, say, **arguments)
        key = say.get("operator-key-unset" if provider.api_key is None else "operator-key-accepted")
        works = say.get("operator-works", provider=provider.id, trial=describe_trial(result, say), key=key)
        text = "\n".join([works, *describe_refusals("", result, say)])
        if test.status.state is ProviderState.COOLING and test.status.until is not None:
            until = self._until(test.status.until, say)
            text += f" {say.get('operator-still-cools', provider=provider.id, until=until)}"
        return "\n".join([text, *_warnings(test.record, say)])

    @staticmethod
    def _with_warnings(key: str, record: ActRecord, say: Wording, **arguments: str) -> str:
        return "\n".join([say.get(key, **arguments), *_warnings(record, say)])


def _warnings(record: ActRecord, say: Wording) -> list[str]:
    keys = {"operator-redis-gone": record.is_shared, "not-audited": record.is_audited}
    return [say.get(key) for key, is_good in keys.items() if not is_good]

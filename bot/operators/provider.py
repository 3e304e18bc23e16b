"""`/provider`: parses the command and words its result for operators, in English."""

from collections.abc import Awaitable, Callable
from datetime import UTC, tzinfo

from bot.operators.provider_table import DATABASE_UNAVAILABLE, REDIS_UNAVAILABLE, format_until, provider_table
from bot.operators.trial import describe_refusals, describe_trial
from core.clock import Clock
from core.config.providers import ProviderSettings
from core.durations import format_duration, parse_duration
from services.admin.providers import FORCE_S, ActRecord, ProviderAdmin
from services.llm.routing.faults.refusal_words import Fault
from services.llm.routing.status import ProviderState

NOT_AUDITED = "This action is missing from the audit log: the database rejected the entry."


class ProviderCommands:
    """The `/provider` command of Telegram and the console.

    Args:
        zone: of the instants that are shown.
    """

    def __init__(self, admin: ProviderAdmin, clock: Clock, zone: tzinfo = UTC) -> None:
        self._admin = admin
        self._clock = clock
        self._zone = zone

    @property
    def syntax(self) -> str:
        """The syntax of the command, and the configured providers."""
        known = ", ".join(status.provider for status in self._admin.status.providers) or "none"
        cooldown = format_duration(self._admin.default_cooldown_s)
        return (
            "Usage: /provider [force <id> [10m] | clear | test <id> | cooldown <id> [5m] | reset <id>]; "
            f"durations are 90s, 10m, 2h, a plain number is minutes (without one: force {format_duration(FORCE_S)}, "
            f"cooldown {cooldown}). Providers: {known}."
        )

    async def run(self, arguments: str, actor_id: int) -> str:
        """Runs the command and returns its result as text.

        Args:
            arguments: empty for the table, or `force`, `clear`, `test`, `cooldown` or `reset` with theirs.
            actor_id: for the audit log.
        """
        words = arguments.split()
        match [word.lower() for word in words[:1]], words[1:]:
            case [[], []]:
                return await self.overview()
            case [["clear"], []]:
                return await self._clear(actor_id)
            case [["test"], [name]]:
                return await self._with_provider(name, lambda provider: self._test(provider, actor_id))
            case [["reset"], [name]]:
                return await self._with_provider(name, lambda provider: self._reset(provider, actor_id))
            case [["force" | "cooldown" as verb], [name, *written]]:
                # "10 m" is as good as "10m".
                seconds = parse_duration("".join(written)) if written else None
                if written and seconds is None:
                    return f"Not a duration from 1s to 168h. {self.syntax}"
                act = self._force if verb == "force" else self._cooldown
                return await self._with_provider(name, lambda provider: act(provider, actor_id, seconds))
            case _:
                return self.syntax

    async def overview(self) -> str:
        """Returns the table of providers, with the usage of today where the database is available."""
        today = await self._admin.usage_today()
        table = provider_table(self._admin.status, self._clock.time(), today, self._zone)
        return table if today is not None else f"{table}\n\n{DATABASE_UNAVAILABLE}"

    def _until(self, instant: float) -> str:
        return format_until(instant, self._clock.time(), self._zone)

    async def _with_provider(self, name: str, act: Callable[[ProviderSettings], Awaitable[str]]) -> str:
        provider = self._admin.find(name)
        if provider is not None:
            return await act(provider)
        status = self._admin.find_status(name)
        if status is not None:
            return f"{status.provider} is not configured: {status.reason}."
        return f"There is no such provider. {self.syntax}"

    async def _force(self, provider: ProviderSettings, actor_id: int, seconds: float | None) -> str:
        act = await self._admin.force(provider, actor_id, seconds)
        until = self._until(self._clock.time() + act.seconds)
        return _with_warnings(f"{provider.id} is asked first {until}. If it fails, the others follow.", act.record)

    async def _clear(self, actor_id: int) -> str:
        record = await self._admin.clear(actor_id)
        text = (
            "Cleared the forced and the preferred provider: the order of AVAILABLE_PROVIDERS applies. Cooldowns stay."
        )
        return _with_warnings(text, record)

    async def _cooldown(self, provider: ProviderSettings, actor_id: int, seconds: float | None) -> str:
        act = await self._admin.cooldown(provider, actor_id, seconds)
        status = act.status
        if status.state is ProviderState.FORCED and status.until is not None:
            until = self._until(status.until)
            return _with_warnings(
                f"{provider.id} cools down, but it is forced {until} and asked first until then.", act.record
            )
        end = (
            status.until if status.state is ProviderState.COOLING and status.until else self._clock.time() + act.seconds
        )
        return _with_warnings(
            f"{provider.id} cools down {self._until(end)}: the others are asked before it.", act.record
        )

    async def _reset(self, provider: ProviderSettings, actor_id: int) -> str:
        act = await self._admin.reset(provider, actor_id)
        return _with_warnings(
            f"{provider.id} is reset: no cooldown, back to its place in AVAILABLE_PROVIDERS.", act.record
        )

    async def _test(self, provider: ProviderSettings, actor_id: int) -> str:
        test = await self._admin.test(provider, actor_id)
        result, failure = test.result, test.result.failure
        if failure is not None:
            misconfigured = failure.outcome.fault is Fault.MISCONFIGURED
            hint = " (the key, the account or the model's name)" if misconfigured else ""
            text = f"{provider.id} does not work: {result.model}: {failure}{hint}, after {result.took_s * 1000:.0f} ms."
        else:
            key = "no key is set" if provider.api_key is None else "the key is accepted"
            text = "\n".join([f"{provider.id} works: {describe_trial(result)}; {key}.", *describe_refusals("", result)])
            if test.status.state is ProviderState.COOLING and test.status.until is not None:
                until = self._until(test.status.until)
                text += f" It still cools down {until}; /provider reset {provider.id} ends that."
        return _with_warnings(text, test.record)


def _with_warnings(text: str, record: ActRecord) -> str:
    warnings = ([] if record.is_shared else [REDIS_UNAVAILABLE]) + ([] if record.is_audited else [NOT_AUDITED])
    return "\n".join([text, *warnings])

"""`/provider`: parses the command and words its result for operators."""

from collections.abc import Awaitable, Callable
from datetime import UTC, tzinfo

from bot.operators.formatting import Wording
from bot.operators.provider_table import capability_tables, describe_refusals, describe_trial, provider_table
from core.clock import Clock
from core.config.providers import ProviderSettings
from core.durations import format_duration, parse_duration
from core.i18n import Texts
from services.admin.providers import FORCE_S, ActRecord, ProviderAdmin
from services.llm.routing.faults.refusal_words import Fault
from services.llm.routing.status import ProviderState

Act = Callable[[ProviderSettings], Awaitable[str]]


class ProviderCommands:
    """The `/provider` command of Telegram and the console.

    Args:
        zone: of the instants that are shown.
        texts: in every language; each call names that of its reader.
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
            actor_id: for the audit log.
            language: of the reader.
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

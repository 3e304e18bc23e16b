"""What admins do with the providers: `/provider` and its buttons."""

import asyncio
from collections.abc import Mapping
from datetime import date
from typing import Protocol

import structlog
from pydantic_ai.direct import model_request
from pydantic_ai.exceptions import ModelRequestTimeout
from pydantic_ai.messages import ModelRequest, ModelResponse
from pydantic_ai.models import Model
from pydantic_ai.settings import ModelSettings

from bot.operators.formatting import format_duration, parse_duration
from bot.operators.provider_table import ALONE, NO_FIGURES, format_until, provider_table
from core.clock import Clock
from core.config.providers import ProviderSettings
from core.errors import StorageError
from services.admin.audit import Audit
from services.llm.models.streams import emptiness, is_answer
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.routing.outcomes import EmptyAnswer, Fault, classify
from services.llm.routing.status import ProviderState, ProviderStatus
from services.usage.totals import UsageTotal

log = structlog.get_logger()

FORCE_S = 1800.0
"""How long a force holds where nobody says."""
TEST_QUESTION = "Reply with the one word OK."
TEST_TOKENS = 16
"""The least that every wire accepts; one token is refused by some."""
NOT_AUDITED = "This act is missing in the audit log: the database did not take the entry."


class ModelSource(Protocol):
    """Builds the model of a provider."""

    def model(self, provider: ProviderSettings, model_name: str) -> Model:
        """The pydantic-ai model for one of a provider's models."""
        ...


class UsageSource(Protocol):
    """What was used of the providers."""

    @property
    def today(self) -> date:
        """The day in UTC."""
        ...

    async def by_provider(self, since: date) -> Mapping[str, UsageTotal]:
        """What all replicas used of each provider, from that day on."""
        ...


class ProviderAdmin:
    """The acts of admins on providers, each answered with a text for whoever did it and noted in the audit log.

    The texts are for operators and in English. Whether somebody is an admin is the surface's to know.

    Args:
        fallback: the service that is acted on.
        builder: gives the model that a test asks.
        audit: where acts are noted.
        accounts: what was used today.
        clock: the time.
    """

    def __init__(
        self, fallback: LLMProviderFallback, builder: ModelSource, audit: Audit, accounts: UsageSource, clock: Clock
    ) -> None:
        self._fallback = fallback
        self._builder = builder
        self._audit = audit
        self._accounts = accounts
        self._clock = clock

    @property
    def usage(self) -> str:
        """How the command is written, and which providers there are."""
        known = ", ".join(status.provider for status in self._statuses()) or "none"
        cooldown = format_duration(self._fallback.rules.cooldown_s)
        return (
            "Usage: /provider [force <id> [10m] | clear | test <id> | cooldown <id> [5m] | reset <id>]; "
            f"durations are 90s, 10m, 2h, a plain number is minutes (without one: force {format_duration(FORCE_S)}, "
            f"cooldown {cooldown}). Providers: {known}."
        )

    async def command(self, arguments: str, actor_id: int) -> str:
        """Carry out what follows `/provider`, and say what came of it.

        Args:
            arguments: nothing for the table, or `force`, `clear`, `test`, `cooldown`, `reset` with theirs.
            actor_id: who does it, for the audit log.
        """
        words = arguments.split()
        match [word.lower() for word in words[:1]], words[1:]:
            case [[], []]:
                return await self.overview()
            case [["clear"], []]:
                return await self.clear(actor_id)
            case [["test"], [provider]]:
                return await self.test(provider, actor_id)
            case [["reset"], [provider]]:
                return await self.reset(provider, actor_id)
            case [["force" | "cooldown" as verb], [provider, *written]]:
                # "10 m" is as good as "10m".
                seconds = parse_duration("".join(written)) if written else None
                if written and seconds is None:
                    return f"That is no duration from 1s to 168h. {self.usage}"
                act = self.force if verb == "force" else self.cooldown
                return await act(provider, actor_id, seconds)
            case _:
                return self.usage

    async def overview(self) -> str:
        """Every provider with its state and figures; without those of today where the database does not answer."""
        try:
            today = await self._accounts.by_provider(self._accounts.today)
        except StorageError as error:
            log.warning("admin.no_figures", error=str(error))
            return f"{self.table()}\n\n{NO_FIGURES}"
        return provider_table(self._fallback.get_provider_status(), self._clock.time(), today)

    def table(self) -> str:
        """Every provider with its state and what this process knows of it."""
        return provider_table(self._fallback.get_provider_status(), self._clock.time())

    async def force(self, provider: str, actor_id: int, seconds: float | None = None) -> str:
        """Have a provider asked first for so many seconds."""
        found = self._usable(provider)
        if isinstance(found, str):
            return found
        seconds = FORCE_S if seconds is None else seconds
        await self._fallback.force_provider(found.id, seconds)
        until = format_until(self._clock.time() + seconds, self._clock.time())
        text = f"{found.id} is asked first {until}. Should it fail, the others follow."
        return await self._done(text, actor_id, "force", found.id, f"for {format_duration(seconds)}")

    async def clear(self, actor_id: int) -> str:
        """Have the priority order in force again."""
        await self._fallback.clear_cache()
        text = "Force and preference are cleared: the order of AVAILABLE_PROVIDERS holds. Cooldowns stay."
        return await self._done(text, actor_id, "clear")

    async def cooldown(self, provider: str, actor_id: int, seconds: float | None = None) -> str:
        """Have a provider asked last for so many seconds; one that already cools down longer keeps its end."""
        found = self._usable(provider)
        if isinstance(found, str):
            return found
        seconds = self._fallback.rules.cooldown_s if seconds is None else seconds
        await self._fallback.cool_down(found.id, seconds, by=f"admin {actor_id}")
        now, status = self._clock.time(), self._status(found.id)
        if status.state is ProviderState.FORCED and status.until is not None:
            text = (
                f"{found.id} cools down, but it is forced {format_until(status.until, now)} and asked first till then."
            )
        else:
            until = status.until if status.state is ProviderState.COOLING and status.until else now + seconds
            text = f"{found.id} cools down {format_until(until, now)}: the others are asked before it."
        return await self._done(text, actor_id, "cooldown", found.id, f"for {format_duration(seconds)}")

    async def reset(self, provider: str, actor_id: int) -> str:
        """End a provider's cooldown."""
        found = self._usable(provider)
        if isinstance(found, str):
            return found
        await self._fallback.reset(found.id)
        text = f"{found.id} is reset: it has no cooldown and stands where AVAILABLE_PROVIDERS puts it."
        return await self._done(text, actor_id, "reset", found.id)

    async def test(self, provider: str, actor_id: int) -> str:
        """Send a tiny request to this very provider, to its default model.

        It goes past the fallback service and changes nothing there: an admin who tests a provider wants to know, and
        one word in time is no proof that answers of a minute come through.
        """
        found = self._usable(provider)
        if isinstance(found, str):
            return found
        began = self._clock.monotonic()
        error = await self._try(found)
        took = _took(self._clock.monotonic() - began)
        if error is None:
            key = "no key is set" if found.api_key is None else "the key is accepted"
            text, detail = f"{found.id} works: {found.default_model} answered in {took}, {key}.", f"ok in {took}"
        else:
            outcome = classify(error, self._fallback.rules.cooldown_s)
            if outcome.fault is Fault.OURS:
                log.error("provider.test_broken", provider=found.id, exc_info=error)
            hint = " (the key, the account or the model's name)" if outcome.fault is Fault.MISCONFIGURED else ""
            detail = f"failed: {outcome.reason}"
            text = f"{found.id} does not work: {found.default_model}: {outcome.reason}{hint}, after {took}."
        status = self._status(found.id)
        if error is None and status.state is ProviderState.COOLING and status.until is not None:
            until = format_until(status.until, self._clock.time())
            text += f" It still cools down {until}; /provider reset {found.id} ends that."
        return await self._done(text, actor_id, "test", found.id, detail)

    async def _try(self, provider: ProviderSettings) -> Exception | None:
        """What is wrong with a provider, if anything."""
        timeout_s = provider.first_token_timeout_s
        try:
            model = self._builder.model(provider, provider.default_model)
            question = [ModelRequest.user_text_prompt(TEST_QUESTION)]
            async with asyncio.timeout(timeout_s):
                response = await model_request(model, question, model_settings=ModelSettings(max_tokens=TEST_TOKENS))
            _check(response)
        except TimeoutError:
            return ModelRequestTimeout(provider.default_model, timeout_s)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what the admin asked for
            return error
        return None

    async def _done(
        self, text: str, actor_id: int, action: str, target: str | None = None, detail: str | None = None
    ) -> str:
        """Note what was done, and add to its text what the admin should know besides."""
        lines = [text]
        if action != "test" and not self._fallback.get_provider_status().shared:
            lines.append(ALONE)
        log.info("admin.acted", action=f"provider.{action}", target=target, actor_id=actor_id, detail=detail)
        try:
            await self._audit.record(actor_id, f"provider.{action}", target, detail)
        except StorageError as error:
            log.error("audit.not_recorded", action=f"provider.{action}", target=target, error=str(error))  # noqa: TRY400 - the reason says it all
            lines.append(NOT_AUDITED)
        return "\n".join(lines)

    def _usable(self, provider: str) -> ProviderSettings | str:
        """The provider of that id, however its case is written; or why nothing can be done with it."""
        for settings in self._fallback.providers:
            if settings.id.casefold() == provider.casefold():
                return settings
        for status in self._statuses():
            if status.provider.casefold() == provider.casefold():
                return f"{status.provider} is not configured: {status.reason}."
        return f"There is no such provider. {self.usage}"

    def _status(self, provider: str) -> ProviderStatus:
        return next(status for status in self._statuses() if status.provider == provider)

    def _statuses(self) -> tuple[ProviderStatus, ...]:
        return self._fallback.get_provider_status().providers


def _check(response: ModelResponse) -> None:
    # A model that thinks first may have used up the few tokens on it: it works all the same.
    if response.finish_reason != "length" and not any(map(is_answer, response.parts)):
        raise EmptyAnswer(emptiness(response.parts))


def _took(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"

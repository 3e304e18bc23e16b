"""Opens the access to the providers, for chat and each capability, and applies their changed configuration."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import structlog

from bot.composition.infrastructure import Infrastructure
from core.background import BackgroundTasks, restart_on_error
from core.config.providers import ProviderSettings
from core.config.settings import Settings, read_capability_providers
from core.observability.log import mask_secrets_too
from services.admin.config_store import SecretBox
from services.admin.configuration import Configuration, ProviderConfiguration
from services.budgets.budgets import Budgets
from services.budgets.limits import BudgetLimits
from services.files.sandbox import SOUND_LIMITS, FileRefused, Sandbox, Task
from services.llm.models.factory import LLMModelFactory
from services.llm.providers.builder import ModelBuilder
from services.llm.providers.catalog import Catalog
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.routing.metrics import AttemptSpans, CapabilityMetrics, ProviderMetrics
from services.llm.routing.opening import OpenFallback, open_fallback
from services.moderation.domain.verdict import Verdict
from services.usage.ledger import UsageLedger

log = structlog.get_logger()

LONGEST_SPEECH_S = 21 * 60
"""One minute above the longest accepted recording."""

if TYPE_CHECKING:
    from services.llm.capabilities.embeddings import Embeddings
    from services.llm.capabilities.images import ImageGenerator
    from services.llm.capabilities.speech import SpeechSynthesizer
    from services.llm.capabilities.transcription import Transcriber


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The capabilities beside chat; None for one without a provider.

    Args:
        fallbacks: the fallback service of each, by its name.
    """

    embeddings: "Embeddings | None" = None
    transcriber: "Transcriber | None" = None
    synthesizer: "SpeechSynthesizer | None" = None
    image_generator: "ImageGenerator | None" = None
    fallbacks: Mapping[str, LLMProviderFallback] = field(default_factory=dict[str, LLMProviderFallback])

    def follow(self, settings: Settings, variables: Mapping[str, str]) -> Sequence[ProviderSettings]:
        """Applies changed variables of the providers to new requests; those in flight finish with the old ones.

        Returns:
            The providers of all capabilities.
        """
        mistakes: list[str] = []
        providers = read_capability_providers(settings, variables, mistakes)
        if mistakes:
            log.error("config.invalid", mistakes=mistakes)
            return [each for fallback in self.fallbacks.values() for each in fallback.roster.all.values()]
        for name, fallback in self.fallbacks.items():
            if tuple(fallback.roster.all.values()) != providers[name]:
                fallback.replace_providers(providers[name])
        return [each for name in self.fallbacks for each in providers[name]]


async def open_capabilities(
    stack: AsyncExitStack,
    infra: Infrastructure,
    variables: Mapping[str, str],
    ledger: UsageLedger,
    builder: ModelBuilder,
    chat: OpenFallback,
) -> Capabilities:
    """Opens each capability with a health of its own, and with the limits and budgets of the chat.

    Args:
        variables: those in effect: keys and addresses that the console set over those of the environment.
    """
    settings = infra.settings
    providers = read_capability_providers(settings, variables, [])
    fallbacks: dict[str, LLMProviderFallback] = {}

    async def start(capability: str) -> LLMProviderFallback:
        opened = await open_fallback(
            stack, settings, infra.redis, infra.clock, ledger,
            providers=providers[capability], capability=capability, shedding=chat.shedding, budgets=chat.budgets,
        )  # fmt: skip
        fallbacks[capability] = opened.fallback
        return opened.fallback

    embeddings = transcriber = synthesizer = image_generator = None
    if settings.embedders:
        from services.llm.capabilities.embeddings import Embeddings

        embeddings = Embeddings(await start("embeddings"), builder, infra.database)
    if settings.transcribers:
        from services.llm.capabilities.transcription import Transcriber

        transcriber = Transcriber(await start("voice"), builder, partial(_convert, infra.sandbox, "mp3"))
    if settings.speakers:
        from services.llm.capabilities.speech import SpeechSynthesizer

        synthesizer = SpeechSynthesizer(await start("speech"), builder, partial(_convert, infra.sandbox, "ogg"))
    if settings.painters:
        from services.llm.capabilities.images import ImageGenerator

        image_generator = ImageGenerator(await start("images"), builder)
    return Capabilities(embeddings, transcriber, synthesizer, image_generator, fallbacks)


async def _convert(sandbox: Sandbox, target: str, sound: bytes) -> bytes | None:
    """Converts speech; returns None where that is impossible."""
    options = {"longest_s": LONGEST_SPEECH_S, "target": target}
    try:
        return (await sandbox.run(Task.SOUND, sound, SOUND_LIMITS, options)).body
    except FileRefused:
        return None


@dataclass(frozen=True, slots=True)
class LLMServices:
    """Access to the providers."""

    fallback: LLMProviderFallback
    builder: ModelBuilder
    catalog: Catalog
    configuration: ProviderConfiguration
    models: LLMModelFactory[Verdict]
    budgets: Budgets
    capabilities: Capabilities


async def open_llm_services(stack: AsyncExitStack, infra: Infrastructure, ledger: UsageLedger) -> LLMServices:
    """Opens the fallback services of chat and of each capability, with the budgets that requests are reserved in."""
    settings, clock, tracing = infra.settings, infra.clock, infra.tracing
    budgets = await _open_budgets(stack, infra)
    configuration = ProviderConfiguration(
        settings.variables,
        settings.providers,
        infra.database,
        clock,
        SecretBox(settings.secrets_key) if settings.secrets_key else None,
    )
    await configuration.start()
    opened = await open_fallback(
        stack, settings, infra.redis, clock, ledger, providers=configuration.current.providers, budgets=budgets
    )
    fallback, shared = opened.fallback, opened.shared
    mask_secrets_too(configuration.current.secrets)
    infra.metrics.allow_models(_models(configuration.current))
    ProviderMetrics(infra.metrics, fallback, shared)
    if tracing.on:
        fallback.recorder.watch(AttemptSpans(tracing.tracer).note)
    builder = ModelBuilder(clock)
    stack.push_async_callback(builder.aclose)

    variables = configuration.variables()
    capabilities = await open_capabilities(stack, infra, variables, ledger, builder, opened)
    CapabilityMetrics(infra.metrics, capabilities.fallbacks)

    def apply(changed: Configuration) -> None:
        mask_secrets_too(changed.secrets)
        infra.metrics.allow_models(_models(changed))
        fallback.replace_providers(changed.providers)
        builder.keep_only([*changed.providers, *capabilities.follow(settings, configuration.variables())])

    configuration.on_change(apply)
    if settings.web_port is not None or not infra.database.is_embedded:
        tasks = BackgroundTasks()
        stack.push_async_callback(tasks.close)
        tasks.start(restart_on_error(configuration.run, "configuration", clock), "configuration")
    return LLMServices(
        fallback,
        builder,
        Catalog(builder.http_client, clock),
        configuration,
        LLMModelFactory(fallback, builder, Verdict),
        budgets,
        capabilities,
    )


def _models(configuration: Configuration) -> set[tuple[str, str]]:
    return {(provider.id, model) for provider in configuration.providers for model in provider.models}


async def _open_budgets(stack: AsyncExitStack, infra: Infrastructure) -> Budgets:
    settings = infra.settings
    limits = BudgetLimits(settings.budget_user_day, settings.budget_chat_day, settings.budget_day)
    budgets = Budgets(infra.database, infra.clock, infra.pseudonyms, limits, zone=settings.zone)
    await budgets.start()
    stack.push_async_callback(budgets.close)
    return budgets

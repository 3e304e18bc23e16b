"""Builds the capabilities beside chat; one without a provider is not imported."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import structlog

from bot.composition.infrastructure import Infrastructure
from core.config.providers import ProviderSettings
from core.config.settings import Settings, read_capability_providers
from services.files.sandbox import SOUND_LIMITS, FileRefused, Sandbox, Task
from services.llm.providers.builder import ModelBuilder
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.routing.opening import OpenFallback, open_fallback
from services.usage.ledger import UsageLedger

log = structlog.get_logger()

LONGEST_SPEECH_S = 21 * 60
"""A minute above the longest recording that is taken."""

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

"""What the console says before the first message: who will answer, and what is missing."""

from collections.abc import Sequence

from bot.console.terminal import Terminal
from core.config.providers import ProviderKind
from core.config.settings import Settings
from core.i18n import Texts
from services.llm.providers.probe import ProbeResult


def print_banner(
    screen: Terminal, texts: Texts, language: str | None, settings: Settings, probes: Sequence[ProbeResult]
) -> None:
    """Greet.

    Args:
        screen: where.
        texts: what is said.
        language: in which language.
        settings: as the services got them, with the demo where it was added.
        probes: what became of asking each provider that can be used.
    """
    for probe in probes:
        screen.say(_line(probe, texts, language))
    for warning in settings.warnings:
        screen.aside(warning)
    if any(provider.kind is ProviderKind.DEMO for provider in settings.providers) and not ready(probes):
        screen.note(texts.get("console-demo-stands-in", language))
    if settings.redis_url is None:
        screen.aside(texts.get("console-embedded-store", language))
    screen.aside(texts.get("console-hint", language))
    screen.gap()


def ready(probes: Sequence[ProbeResult]) -> bool:
    """Whether anybody can be expected to answer."""
    return any(probe.ready for probe in probes)


def _line(probe: ProbeResult, texts: Texts, language: str | None) -> str:
    provider, model = probe.provider.id, probe.provider.default_model
    if probe.reason is not None:
        return f"{provider}: {probe.reason}"
    key = "console-ready" if probe.ready else "console-model-missing"
    return texts.get(key, language, provider=provider, model=model)

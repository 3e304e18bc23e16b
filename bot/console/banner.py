"""Start-up lines of the console: available providers, missing settings and a hint."""

from collections.abc import Sequence

from bot.console.terminal import Terminal
from core.config.providers import ProviderKind
from core.config.settings import Settings
from core.i18n import Texts
from services.llm.providers.probe import ProbeResult


def print_banner(
    terminal: Terminal, texts: Texts, language: str | None, settings: Settings, probes: Sequence[ProbeResult]
) -> None:
    """Prints the state of each provider, warnings and a hint.

    Args:
        settings: as the services use them, with the demo provider where it was added.
        probes: one per usable provider.
    """
    for probe in probes:
        terminal.print(_describe(probe, texts, language))
    for warning in settings.warnings:
        terminal.print_dimmed(warning)
    if any(provider.kind is ProviderKind.DEMO for provider in settings.providers) and not is_any_ready(probes):
        terminal.print_highlighted(texts.get("console-demo-stands-in", language))
    if settings.redis_url is None:
        terminal.print_dimmed(texts.get("console-embedded-store", language))
    terminal.print_dimmed(texts.get("console-hint", language))
    terminal.print_blank_line()


def is_any_ready(probes: Sequence[ProbeResult]) -> bool:
    """Returns whether any provider is available."""
    return any(probe.is_ready for probe in probes)


def _describe(probe: ProbeResult, texts: Texts, language: str | None) -> str:
    provider, model = probe.provider.id, probe.default_model
    if probe.reason is not None and not probe.has_no_list:
        return f"{provider}: {probe.reason}"
    key = "console-ready" if probe.is_ready else "console-model-missing"
    return texts.get(key, language, provider=provider, model=model)

"""Probes all providers at once by requesting their model lists."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from core.clock import Clock
from core.config.providers import ProviderKind, ProviderSettings
from services.llm.providers.catalog import Catalog, CatalogError

log = structlog.get_logger()

STARTUP_TIMEOUT_S = 5.0
_VERSION_SUFFIX = r"(:latest|-latest|-\d{8}|-\d{4}-\d{2}-\d{2})?"
"""Ollama lists `llama3.2` as `llama3.2:latest`; others list an alias under its dated name."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """Result of probing one provider.

    Args:
        models: the models that it lists; empty if it did not answer.
        reason: why it did not answer; None if it did.
        took_s: duration of the probe.
    """

    provider: ProviderSettings
    models: tuple[str, ...]
    reason: str | None
    took_s: float

    @property
    def unlisted(self) -> tuple[str, ...]:
        """The configured models that the provider does not list; empty if it did not answer."""
        if self.reason is not None:
            return ()
        return tuple(name for name in self.provider.models if not self._lists(name))

    @property
    def is_ready(self) -> bool:
        """True if it answered and, for Ollama, whose list is complete, lists its default model."""
        if self.provider.kind is ProviderKind.OLLAMA and self.provider.default_model in self.unlisted:
            return False
        return self.reason is None

    def _lists(self, name: str) -> bool:
        pattern = re.compile(re.escape(name) + _VERSION_SUFFIX)
        return any(map(pattern.fullmatch, self.models))


async def probe_providers(
    catalog: Catalog, providers: Sequence[ProviderSettings], timeout_s: float, clock: Clock
) -> tuple[ProbeResult, ...]:
    """Probe the providers concurrently and return the results in their order.

    An unusable provider fails with its missing variables as the reason. `timeout_s` applies to each provider.
    """

    async def probe(provider: ProviderSettings) -> ProbeResult:
        began = clock.monotonic()
        models: tuple[str, ...] = ()
        reason: str | None = None
        try:
            models = await catalog.live_models(provider, timeout_s=timeout_s)
        except CatalogError as error:
            reason = error.reason
        return ProbeResult(provider, models, reason, clock.monotonic() - began)

    return tuple(await asyncio.gather(*map(probe, providers)))


async def log_unavailable_providers(catalog: Catalog, providers: Sequence[ProviderSettings], clock: Clock) -> None:
    """Log which providers do not answer or lack a configured model. Each is used once it is back."""
    probes = await probe_providers(catalog, providers, STARTUP_TIMEOUT_S, clock)
    for probe in probes:
        if probe.reason is not None:
            log.warning("provider.unreachable", provider=probe.provider.id, reason=probe.reason)
        elif not probe.is_ready:
            log.warning("provider.model_missing", provider=probe.provider.id, models=probe.unlisted)
    if not any(probe.is_ready for probe in probes):
        log.error("bot.no_provider_ready", detail="messages are answered once a provider is back")

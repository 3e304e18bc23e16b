"""Asking every provider for its model list at once: who is there, right now?"""

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
_OTHER_WRITINGS = r"(:latest|-latest|-\d{8}|-\d{4}-\d{2}-\d{2})?"
"""Ollama lists `llama3.2` as `llama3.2:latest`; others list an alias under the dated name that it stands for."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What became of asking one provider.

    Args:
        provider: who was asked.
        models: its list, as long as it is.
        reason: why there is none; None where it answered.
        took_s: how long that took.
    """

    provider: ProviderSettings
    models: tuple[str, ...]
    reason: str | None
    took_s: float

    @property
    def unlisted(self) -> tuple[str, ...]:
        """The configured models that a provider that answered does not list."""
        if self.reason is not None:
            return ()
        return tuple(name for name in self.provider.models if not self._lists(name))

    @property
    def ready(self) -> bool:
        """Whether it answered and, where its list is known to be complete, has its default model."""
        if self.provider.kind is ProviderKind.OLLAMA and self.provider.default_model in self.unlisted:
            return False
        return self.reason is None

    def _lists(self, name: str) -> bool:
        written = re.compile(re.escape(name) + _OTHER_WRITINGS)
        return any(map(written.fullmatch, self.models))


async def probe_providers(
    catalog: Catalog, providers: Sequence[ProviderSettings], timeout_s: float, clock: Clock
) -> tuple[ProbeResult, ...]:
    """Ask all of them side by side; in their order.

    Args:
        catalog: asks.
        providers: whom; those that are not configured have that as their reason.
        timeout_s: seconds that each has.
        clock: measures.
    """

    async def ask(provider: ProviderSettings) -> ProbeResult:
        began = clock.monotonic()
        models: tuple[str, ...] = ()
        reason: str | None = None
        try:
            models = await catalog.live_models(provider, timeout_s=timeout_s)
        except CatalogError as error:
            reason = error.reason
        return ProbeResult(provider, models, reason, clock.monotonic() - began)

    return tuple(await asyncio.gather(*map(ask, providers)))


async def log_unavailable_providers(catalog: Catalog, providers: Sequence[ProviderSettings], clock: Clock) -> None:
    """Log which providers do not answer or lack a configured model. Each is used once it is back."""
    probes = await probe_providers(catalog, providers, STARTUP_TIMEOUT_S, clock)
    for probe in probes:
        if probe.reason is not None:
            log.warning("provider.unreachable", provider=probe.provider.id, reason=probe.reason)
        elif not probe.ready:
            log.warning("provider.model_missing", provider=probe.provider.id, models=probe.unlisted)
    if not any(probe.ready for probe in probes):
        log.error("bot.no_provider_ready", detail="messages are answered once a provider is back")

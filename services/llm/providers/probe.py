"""Probes all providers at once by requesting their model lists."""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

import structlog

from core.clock import Clock
from core.config.providers import ProviderKind, ProviderSettings
from services.llm.providers.catalog import Catalog, CatalogError, suggest_version

log = structlog.get_logger()

STARTUP_TIMEOUT_S = 5.0
_NO_LIST = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED})
_VERSION_SUFFIX = r"(:latest|-latest|-\d{8}|-\d{4}-\d{2}-\d{2})?"
"""Ollama lists `llama3.2` as `llama3.2:latest`; others list an alias under its dated name."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """Result of probing one provider.

    Args:
        models: the models that it lists; empty if it gave no list.
        reason: why it gave no list; None if it did.
        took_s: duration of the probe.
        status: HTTP status of an answer that was no list; None where it gave a list or did not answer.
    """

    provider: ProviderSettings
    models: tuple[str, ...]
    reason: str | None
    took_s: float
    status: int | None = None

    @property
    def may_answer(self) -> bool:
        """False if it was not reached or refused the key, so that it answers no request either.

        Servers and keys without access to a model list may answer all the same.
        """
        return self.reason is None or (self.status is not None and self.status != HTTPStatus.UNAUTHORIZED)

    @property
    def has_no_list(self) -> bool:
        """True if the server has no model list, and nothing else is wrong with its address."""
        return self.status in _NO_LIST and suggest_version(self.provider) is None

    @property
    def default_model(self) -> str:
        """The first configured model that the provider lists; without a list the first."""
        listed = (name for name in self.provider.models if self._lists(name))
        return next(listed, self.provider.default_model)

    @property
    def unlisted(self) -> tuple[str, ...]:
        """The configured models that the provider does not list; empty if it did not answer."""
        if self.reason is not None:
            return ()
        return tuple(name for name in self.provider.models if not self._lists(name))

    @property
    def passed_over(self) -> tuple[str, ...]:
        """The configured models before the first one that the provider lists; empty if it lists none of them."""
        models, default = self.provider.models, self.default_model
        return models[: models.index(default)] if self.reason is None and self._lists(default) else ()

    @property
    def is_ready(self) -> bool:
        """True if it answered and, for Ollama, lists one of the configured models: its list is complete."""
        if self.provider.kind is ProviderKind.OLLAMA and len(self.unlisted) == len(self.provider.models):
            return False
        return self.reason is None or self.has_no_list

    def _lists(self, name: str) -> bool:
        pattern = re.compile(re.escape(name) + _VERSION_SUFFIX)
        return any(map(pattern.fullmatch, self.models))


async def probe_providers(
    catalog: Catalog, providers: Sequence[ProviderSettings], timeout_s: float, clock: Clock
) -> tuple[ProbeResult, ...]:
    """Probes the providers concurrently and returns the results in their order.

    An unusable provider fails with its missing variables as the reason. `timeout_s` applies to each provider.
    """

    async def probe(provider: ProviderSettings) -> ProbeResult:
        began = clock.monotonic()
        models: tuple[str, ...] = ()
        reason: str | None = None
        status: int | None = None
        try:
            models = await catalog.live_models(provider, timeout_s=timeout_s)
        except CatalogError as error:
            reason, status = error.reason, error.status
        return ProbeResult(provider, models, reason, clock.monotonic() - began, status)

    return tuple(await asyncio.gather(*map(probe, providers)))


async def check_providers(
    catalog: Catalog,
    providers: Sequence[ProviderSettings],
    clock: Clock,
    pass_over: Callable[[str, Sequence[str]], None],
) -> None:
    """Logs which providers do not answer or lack a configured model. Each is used once it is back.

    Args:
        catalog: the model lists.
        providers: those that are asked.
        clock: measures the probes.
        pass_over: called with a provider and its models that are missing before one that it has.
    """
    probes = await probe_providers(catalog, providers, STARTUP_TIMEOUT_S, clock)
    for probe in probes:
        if probe.has_no_list:
            log.info("provider.no_model_list", provider=probe.provider.id, reason=probe.reason)
        elif probe.reason is not None:
            log.warning("provider.unreachable", provider=probe.provider.id, reason=probe.reason)
        elif not probe.is_ready:
            log.warning("provider.model_missing", provider=probe.provider.id, models=probe.unlisted)
        elif probe.passed_over:
            log.info("provider.models_passed_over", provider=probe.provider.id, models=probe.passed_over)
            pass_over(probe.provider.id, probe.passed_over)
    if not any(probe.is_ready for probe in probes):
        log.error("bot.no_provider_ready", detail="messages are answered once a provider is back")

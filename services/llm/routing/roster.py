"""The configured providers as requests find them now; operators may replace them while requests run."""

from collections.abc import Callable, Mapping, Sequence

from core.config.providers import ProviderSettings
from core.errors import UnknownProvider


class ProviderRoster:
    """The providers by priority. A request keeps the settings that it began with.

    Args:
        providers: all of `AVAILABLE_PROVIDERS`, by priority; those with missing settings are never asked.
    """

    def __init__(self, providers: Sequence[ProviderSettings]) -> None:
        self._listeners: list[Callable[[], None]] = []
        self.all: Mapping[str, ProviderSettings] = {}
        self.usable: tuple[str, ...] = ()
        self.providers: tuple[ProviderSettings, ...] = ()
        """The providers that can be asked, by priority."""
        self.has_limits = False
        """True if any usable provider has a `MAX_CONCURRENCY`."""
        self._set(providers)

    def replace(self, providers: Sequence[ProviderSettings]) -> None:
        """Replaces all providers, and tells the listeners."""
        self._set(providers)
        for listener in self._listeners:
            listener()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Registers a callback for every replacement. It must not block."""
        self._listeners.append(listener)

    def require(self, provider: str) -> ProviderSettings:
        """Returns the settings of a provider.

        Raises:
            UnknownProvider: it is not configured.
        """
        if provider not in self.all:
            raise UnknownProvider(provider, list(self.all))
        return self.all[provider]

    def _set(self, providers: Sequence[ProviderSettings]) -> None:
        self.all = {provider.id: provider for provider in providers}
        self.providers = tuple(provider for provider in self.all.values() if provider.missing is None)
        self.usable = tuple(provider.id for provider in self.providers)
        self.has_limits = any(provider.max_concurrency is not None for provider in self.providers)

"""`/model` of the console: lists models, picks one, shows or hides who answered."""

from collections.abc import Sequence
from contextlib import suppress

from bot.console.chat import KEY, ConsoleChat
from bot.console.terminal import Terminal
from core.clock import Clock
from core.config.providers import ProviderSettings
from core.i18n import Texts
from services.llm.providers.catalog import Catalog, CatalogError
from services.llm.providers.probe import ProbeResult, probe_providers
from services.llm.routing.fallback import LLMProviderFallback
from services.preferences import PreferenceStore

AUTOMATIC = "auto"
"""Argument that resets the choice of a provider or a language."""
CATALOG_TIMEOUT_S = 2.0
SHOWN_MODELS = 12
"""Maximum number of names listed; servers may have hundreds."""


class ModelCommands:
    """Runs `/model`, and finds providers by the names that are typed."""

    def __init__(
        self,
        chat: ConsoleChat,
        terminal: Terminal,
        texts: Texts,
        clock: Clock,
        *,
        preferences: PreferenceStore,
        fallback: LLMProviderFallback,
        catalog: Catalog,
    ) -> None:
        self._chat = chat
        self._terminal = terminal
        self._texts = texts
        self._clock = clock
        self._preferences = preferences
        self._fallback = fallback
        self._catalog = catalog
        self._scope = KEY.chat_ref

    async def run(self, arguments: str) -> None:
        """Runs the command."""
        name, _, model = arguments.partition(" ")
        if not name:
            await self._list_models()
        elif name.lower() == "footers":
            await self._footers(model.strip())
        elif name.lower() == AUTOMATIC:
            await self._preferences.clear_model(self._scope)
            self._print("model-automatic-set")
        elif (provider := self.find_provider(name)) is not None:
            await self._pick(provider, model.strip() or provider.default_model)

    async def _footers(self, argument: str) -> None:
        if argument not in {"on", "off"}:
            self._print("console-model-usage")
            return
        await self._preferences.set_footers(self._scope, shown=argument == "on")
        self._print("footers-shown" if argument == "on" else "footers-hidden")

    async def _list_models(self) -> None:
        language = self._chat.language
        preference = await self._preferences.get(self._scope)
        automatic = self._texts.get("model-automatic", language)
        current = f"{preference.provider} {preference.model or ''}".strip() if preference.provider else automatic
        probes = await probe_providers(self._catalog, self._fallback.providers, CATALOG_TIMEOUT_S, self._clock)
        self._print("model-title", current=current)
        self._terminal.print("\n".join(["", *map(self._describe_models, probes), ""]))
        self._print("console-model-usage")

    def _describe_models(self, probe: ProbeResult) -> str:
        texts, language = self._texts, self._chat.language
        line = f"  {probe.provider.id}: {', '.join(probe.provider.models)}"
        is_open = probe.provider.live_models.is_open_to(is_admin=True)
        others = [name for name in probe.models if is_open and name not in probe.provider.models]
        if probe.reason is not None:
            return f"{line} ({probe.reason})"
        if not others:
            return line
        return f"{line}; {texts.get('console-model-others', language, models=_shorten(others))}"

    async def _pick(self, provider: ProviderSettings, model: str) -> None:
        if model not in provider.models:
            offered: tuple[str, ...] = ()
            if provider.live_models.is_open_to(is_admin=True):  # the console is the operator's
                with suppress(CatalogError):
                    offered = await self._catalog.recent_models(provider, timeout_s=CATALOG_TIMEOUT_S)
            if model not in offered:
                known = _shorten(list(dict.fromkeys([*provider.models, *offered])))
                self._print("console-unknown-model", name=model, provider=provider.id, known=known)
                return
        await self._preferences.set_model(self._scope, provider.id, model)
        self._print("model-set", provider=provider.id, model=model)

    def find_provider(self, name: str) -> ProviderSettings | None:
        """Returns the named provider, or None after saying that there is none."""
        providers = self._fallback.providers
        for provider in providers:
            if provider.id.casefold() == name.casefold():
                return provider
        self._print("console-unknown-provider", name=name, known=", ".join(provider.id for provider in providers))
        return None

    def _print(self, key: str, **arguments: str) -> None:
        self._terminal.print(self._texts.get(key, self._chat.language, **arguments))


def _shorten(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN_MODELS])
    rest = len(names) - SHOWN_MODELS
    return f"{shown}, …, +{rest}" if rest > 0 else shown

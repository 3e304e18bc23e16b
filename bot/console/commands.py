"""The commands of the console."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from bot.console.chat import KEY, USER_ID, ConsoleChat
from bot.console.terminal import Terminal
from bot.operators.provider import ProviderAdmin
from bot.operators.usage import UsageReports
from core.clock import Clock
from core.config.providers import ProviderSettings
from core.i18n import Texts
from core.messages import user_ref
from services.chat.store.thread_list import ListedThread, ThreadList
from services.chat.store.turns import TurnStore
from services.consent import Consent
from services.llm.providers.catalog import Catalog, CatalogError
from services.llm.providers.probe import ProbeResult, probe_providers
from services.llm.routing.attempts import ModelChoice
from services.llm.routing.fallback import LLMProviderFallback
from services.preferences import PreferenceStore

CATALOG_TIMEOUT_S = 2.0
SHOWN_MODELS = 12
"""Of a list that may have hundreds."""
SHOWN_THREADS = 30
QUIT = "/quit"


@dataclass(frozen=True, slots=True)
class ConsoleServices:
    """Services that the console's commands use."""

    texts: Texts
    clock: Clock
    threads: TurnStore
    thread_list: ThreadList
    preferences: PreferenceStore
    consent: Consent
    provider_admin: ProviderAdmin
    usage: UsageReports
    fallback: LLMProviderFallback
    catalog: Catalog


class Commands:
    """What a line that begins with a slash does.

    Args:
        services: what the commands act on.
        talk: for answering again.
        screen: where the outcome is shown.
    """

    def __init__(self, services: ConsoleServices, talk: ConsoleChat, screen: Terminal) -> None:
        self._services = services
        self._talk = talk
        self._screen = screen
        self._scope = KEY.chat_ref
        self._acts: Mapping[str, Callable[[str], Awaitable[None]]] = {
            "/help": self._help,
            "/new": self._new,
            "/model": self._model,
            "/provider": self._provider,
            "/retry": self._retry,
            "/privacy": self._privacy,
            "/usage": self._usage,
            "/threads": self._threads,
        }

    async def run(self, line: str) -> None:
        """Carry out a line.

        Raises:
            StorageError: the database fails.
        """
        name, _, arguments = line.partition(" ")
        act = self._acts.get(name.lower())
        if act is None:
            self._say("unknown-command")
        else:
            await act(arguments.strip())

    async def _help(self, _arguments: str) -> None:
        self._say("console-help")

    async def _new(self, _arguments: str) -> None:
        await self._services.threads.start_new(KEY)
        self._say("new-done")

    async def _provider(self, arguments: str) -> None:
        # Whoever sits at the console of a bot runs it.
        self._screen.say(await self._services.provider_admin.command(arguments, USER_ID))

    async def _retry(self, arguments: str) -> None:
        choice: ModelChoice | None = None
        if arguments:
            provider = self._named(arguments)
            if provider is None:
                return
            choice = ModelChoice(provider.id)
        turn = await self._services.threads.last_turn(KEY)
        if turn is None:
            self._say("console-nothing-to-retry")
        elif turn.prompt is None:
            self._say("retry-gone")
        else:
            await self._talk.ask("", retry_of=turn, choice=choice)

    async def _threads(self, arguments: str) -> None:
        verb, _, rest = arguments.partition(" ")
        if verb.lower() == "rename":
            current = await self._services.threads.current(KEY)
            name = await self._services.thread_list.rename(KEY, current.id, rest)
            if name is None:
                self._say("console-threads-usage")
            else:
                self._say("thread-renamed", name=name)
            return
        shelved = await self._services.thread_list.page(KEY, SHOWN_THREADS)
        if not verb:
            for number, each in enumerate(shelved, start=1):
                self._screen.say(f"{'*' if each.is_current else ' '} {number}. {self._thread_name(each)}")
            self._say("console-threads-usage")
            return
        wanted = rest.strip() if verb.lower() == "delete" else verb
        if not wanted.isdecimal() or not 0 < int(wanted) <= len(shelved):
            self._say("console-threads-usage")
            return
        found = shelved[int(wanted) - 1]
        if verb.lower() == "delete":
            await self._services.thread_list.delete(KEY, found.thread.id)
            self._say("thread-deleted")
        else:
            await self._services.thread_list.switch(KEY, found.thread.id)
            self._say("thread-opened", name=self._thread_name(found))

    def _thread_name(self, shelved: ListedThread) -> str:
        return shelved.thread.name or self._services.texts.get("thread-unnamed", self._talk.language)

    async def _usage(self, _arguments: str) -> None:
        usage = self._services.usage
        self._screen.say(await usage.report(user_ref(KEY.surface, USER_ID), None, self._talk.language))
        self._screen.say(f"\n{await usage.everything()}")

    async def _privacy(self, arguments: str) -> None:
        services, language = self._services, self._talk.language
        if not arguments or not services.consent.is_open:
            self._screen.say(await services.consent.standing(self._scope, language))
            if services.consent.is_open:
                self._say("console-privacy-usage")
        elif arguments in {"yes", "no"}:
            granted = arguments == "yes"
            self._screen.say(await services.consent.decide(self._scope, language, granted=granted))
            if granted and self._talk.waits_for_consent:
                await self._retry("")
        else:
            self._say("console-privacy-usage")

    async def _model(self, arguments: str) -> None:
        name, _, model = arguments.partition(" ")
        if not name:
            await self._list_models()
        elif name.lower() == "footers":
            await self._footers(model.strip())
        elif name.lower() == "auto":
            await self._services.preferences.clear_model(self._scope)
            self._say("model-automatic-set")
        elif (provider := self._named(name)) is not None:
            await self._pick(provider, model.strip() or provider.default_model)

    async def _footers(self, argument: str) -> None:
        if argument not in {"on", "off"}:
            self._say("console-model-usage")
            return
        await self._services.preferences.set_footers(self._scope, shown=argument == "on")
        self._say("footers-shown" if argument == "on" else "footers-hidden")

    async def _list_models(self) -> None:
        services, language = self._services, self._talk.language
        preference = await services.preferences.get(self._scope)
        automatic = services.texts.get("model-automatic", language)
        current = f"{preference.provider} {preference.model or ''}".strip() if preference.provider else automatic
        probes = await probe_providers(services.catalog, services.fallback.providers, CATALOG_TIMEOUT_S, services.clock)
        self._say("model-title", current=current)
        self._screen.say("\n".join(["", *map(self._choices, probes), ""]))
        self._say("console-model-usage")

    def _choices(self, probe: ProbeResult) -> str:
        texts, language = self._services.texts, self._talk.language
        line = f"  {probe.provider.id}: {', '.join(probe.provider.models)}"
        others = [name for name in probe.models if name not in probe.provider.models]
        if probe.reason is not None:
            return f"{line} ({probe.reason})"
        if not others:
            return line
        return f"{line}; {texts.get('console-model-others', language, models=self._shortened(others))}"

    async def _pick(self, provider: ProviderSettings, model: str) -> None:
        if model not in provider.models:
            try:
                offered = await self._services.catalog.live_models(provider, timeout_s=CATALOG_TIMEOUT_S)
            except CatalogError:
                offered = ()
            if model not in offered:
                known = self._shortened(list(dict.fromkeys([*provider.models, *offered])))
                self._say("console-unknown-model", name=model, provider=provider.id, known=known)
                return
        await self._services.preferences.set_model(self._scope, provider.id, model)
        self._say("model-set", provider=provider.id, model=model)

    def _named(self, name: str) -> ProviderSettings | None:
        """The provider that is meant; None after saying that there is none."""
        providers = self._services.fallback.providers
        for provider in providers:
            if provider.id.casefold() == name.casefold():
                return provider
        self._say("console-unknown-provider", name=name, known=", ".join(provider.id for provider in providers))
        return None

    def _shortened(self, names: Sequence[str]) -> str:
        shown = ", ".join(names[:SHOWN_MODELS])
        rest = len(names) - SHOWN_MODELS
        return f"{shown}, …, +{rest}" if rest > 0 else shown

    def _say(self, key: str, **arguments: str) -> None:
        self._screen.say(self._services.texts.get(key, self._talk.language, **arguments))

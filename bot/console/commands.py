"""Slash commands of the console."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from bot.command_table import COMMANDS
from bot.console.chat import KEY, USER_ID, ConsoleChat
from bot.console.model_commands import AUTOMATIC, ModelCommands
from bot.console.operator_commands import BROADCAST_ACTS
from bot.console.terminal import Terminal
from bot.operators.provider import ProviderCommands
from bot.operators.spending import BudgetCommands, UsageReports
from core.i18n import Texts
from core.messages import user_ref
from services.admin.audit import AuditKind
from services.chat import personas
from services.chat.service import ChatService
from services.chat.store.thread_list import ListedThread, ThreadList
from services.chat.store.turns import TurnStore
from services.llm.request import ModelChoice
from services.llm.routing.fallback import LLMProviderFallback
from services.preferences import Consent, Languages, PreferenceStore
from services.privacy.erasure import Eraser

SHOWN_THREADS = 30
LEAVING = frozenset({"/quit", "/exit", "quit", "exit"})
BARE_HELP = "help"
"""Typed alone it is the command."""
STANDARD = "standard"
SIMILAR = 0.7
"""Minimum similarity of a suggestion for a mistyped command."""


class Commands:
    """Runs the lines that begin with a slash.

    Args:
        is_drawing: whether a provider draws.
        own_files: files and folders of the user, erased by `/forget`.
    """

    def __init__(  # noqa: PLR0913 - each command uses one or two of them
        self,
        *,
        chat: ConsoleChat,
        service: ChatService,
        turns: TurnStore,
        threads: ThreadList,
        preferences: PreferenceStore,
        consent: Consent,
        usage: UsageReports,
        budgets: BudgetCommands,
        providers: ProviderCommands,
        fallback: LLMProviderFallback,
        models: ModelCommands,
        texts: Texts,
        terminal: Terminal,
        eraser: Eraser,
        languages: Languages,
        is_drawing: bool,
        own_files: Sequence[Path],
        operator: Mapping[str, Callable[[str], Awaitable[None]]] | None = None,
    ) -> None:
        self._chat = chat
        self._service = service
        self._turns = turns
        self._thread_list = threads
        self._preferences = preferences
        self._consent = consent
        self._usage_reports = usage
        self._budgets = budgets
        self._providers = providers
        self._fallback = fallback
        self._models = models
        self._texts = texts
        self._terminal = terminal
        self._eraser = eraser
        self._languages = languages
        self._is_drawing = is_drawing
        self._own_files = own_files
        self._scope = KEY.chat_ref
        self._commands: Mapping[str, Callable[[str], Awaitable[None]]] = {
            "/help": self._help,
            "/start": self._help,
            "/image": self._image,
            "/stop": self._stop,
            "/settings": self._settings,
            "/new": self._new,
            "/compact": self._compact,
            "/model": models.run,
            "/provider": self._provider,
            "/retry": self._retry,
            "/privacy": self._privacy,
            "/usage": self._usage,
            "/threads": self._threads,
            "/budget": self._budget,
            "/forget": self._forget,
            "/language": self._language,
            "/persona": self._persona,
            **(operator or {}),
        }
        self._known_names = [*self._commands, "/quit", "/exit", *(f"/{command}" for command in COMMANDS)]

    async def run(self, line: str) -> None:
        """Runs a command line.

        Raises:
            StorageError: the database fails.
        """
        name, _, arguments = line.partition(" ")
        name = name.lower()
        command = self._commands.get(name)
        if command is not None:
            await command(arguments.strip())
        elif name.removeprefix("/") in COMMANDS:
            self._print("console-telegram-only", command=name)
        elif near := get_close_matches(name, self._known_names, n=1, cutoff=SIMILAR):
            self._print("console-did-you-mean", command=near[0])
        else:
            self._print("unknown-command")

    def complete(self, line: str) -> Sequence[str]:
        """Returns the words that may stand at the end of a line: commands, acts, providers and their models."""
        *before, begun = line.split(" ")
        match before:
            case []:
                words = sorted([*self._commands, "/quit", "/exit"]) if begun.startswith("/") else []
            case ["/provider"]:
                words = ["force", "clear", "test", "cooldown", "reset"]
            case ["/provider", "force" | "test" | "cooldown" | "reset"] | ["/retry"]:
                words = [provider.id for provider in self._fallback.providers]
            case ["/model"]:
                words = [*(provider.id for provider in self._fallback.providers), AUTOMATIC, "footers"]
            case ["/model", name]:
                words = [model for each in self._fallback.providers if each.id == name for model in each.models]
            case ["/compare", *named] if len(named) <= 1:
                words = [f"{each.id}/{model}" for each in self._fallback.providers for model in each.models]
            case ["/broadcast"]:
                words = sorted(BROADCAST_ACTS)
            case ["/audit"]:
                words = [kind.value for kind in AuditKind]
            case _:
                words = []
        return [word for word in words if word.startswith(begun) and word != begun]

    async def _help(self, _arguments: str) -> None:
        self._print("console-help")
        self._print("console-help-more")

    async def _image(self, arguments: str) -> None:
        if self._is_drawing and arguments:
            await self._chat.ask(arguments, draws=True)
        else:
            self._print("image-usage" if self._is_drawing else "images-not-set-up")

    async def _stop(self, _arguments: str) -> None:
        # Lines run one at a time, so no answer is in progress here.
        self._print("console-nothing-to-stop")

    async def _settings(self, _arguments: str) -> None:
        texts, language = self._texts, self._chat.language
        preference, thread = await self._preferences.get(self._scope), await self._turns.current(KEY)
        persona = personas.describe(texts, thread.persona or preference.persona, language)
        footers = texts.get(f"settings-footers-{int(bool(preference.footers))}", language)
        for key, value, command in (
            ("settings-language", texts.get("language-name", language), "/language"),
            ("settings-persona", persona, "/persona"),
            ("settings-footers", footers, "/model footers on|off"),
        ):
            self._terminal.print(f"{texts.get(key, language, value=value)} ({command})")

    async def _new(self, _arguments: str) -> None:
        await self._turns.start_new(KEY)
        self._print("new-done")

    async def _compact(self, _arguments: str) -> None:
        self._print(await self._service.records.compact(KEY, user_ref(KEY.surface, USER_ID)))

    async def _provider(self, arguments: str) -> None:
        # The user of the console is the operator.
        self._terminal.print(await self._providers.run(arguments, USER_ID, self._chat.language))

    async def _retry(self, arguments: str) -> None:
        choice: ModelChoice | None = None
        if arguments:
            provider = self._models.find_provider(arguments)
            if provider is None:
                return
            choice = ModelChoice(provider.id)
        turn = await self._turns.last_turn(KEY)
        if turn is None:
            self._print("console-nothing-to-retry")
        elif turn.prompt is None:
            self._print("retry-gone")
        else:
            await self._chat.ask("", retry_of=turn, choice=choice)

    async def _threads(self, arguments: str) -> None:
        verb, _, rest = arguments.partition(" ")
        if verb.lower() == "rename":
            current = await self._turns.current(KEY)
            name = await self._thread_list.rename(KEY, current.id, rest)
            if name is None:
                self._print("console-threads-usage")
            else:
                self._print("thread-renamed", name=name)
            return
        listed = await self._thread_list.page(KEY, SHOWN_THREADS)
        if not verb:
            for number, each in enumerate(listed, start=1):
                self._terminal.print(f"{'*' if each.is_current else ' '} {number}. {self._thread_name(each)}")
            self._print("console-threads-usage")
            return
        wanted = rest.strip() if verb.lower() == "delete" else verb
        if not wanted.isdecimal() or not 0 < int(wanted) <= len(listed):
            self._print("console-threads-usage")
            return
        found = listed[int(wanted) - 1]
        if verb.lower() == "delete":
            await self._thread_list.delete(KEY, found.thread.id)
            self._print("thread-deleted")
        else:
            await self._thread_list.switch(KEY, found.thread.id)
            self._print("thread-opened", name=self._thread_name(found))

    def _thread_name(self, listed: ListedThread) -> str:
        return listed.thread.name or self._texts.get("thread-unnamed", self._chat.language)

    async def _usage(self, _arguments: str) -> None:
        self._terminal.print(
            await self._usage_reports.report(user_ref(KEY.surface, USER_ID), None, self._chat.language)
        )
        self._terminal.print(f"\n{await self._usage_reports.report_all(self._chat.language)}")

    async def _budget(self, arguments: str) -> None:
        language = self._chat.language
        if not arguments:
            self._terminal.print(await self._budgets.report(user_ref(KEY.surface, USER_ID), None, language))
        self._terminal.print(await self._budgets.run(arguments, USER_ID, language))

    async def _privacy(self, arguments: str) -> None:
        language = self._chat.language
        if not arguments or not self._consent.is_open:
            self._terminal.print(await self._consent.describe(self._scope, language))
            if self._consent.is_open:
                self._print("console-privacy-usage")
        elif arguments in {"yes", "no"}:
            granted = arguments == "yes"
            self._terminal.print(await self._consent.decide(self._scope, language, granted=granted))
            if granted and self._chat.waits_for_consent:
                await self._retry("")
        else:
            self._print("console-privacy-usage")

    async def _forget(self, arguments: str) -> None:
        if arguments.lower() != "yes":
            self._print("console-forget-usage")
            return
        await self._service.deferred.flush()
        await self._eraser.erase(KEY.surface, USER_ID, [])
        await asyncio.to_thread(_remove, self._own_files)
        self._print("forget-done")

    async def _language(self, arguments: str) -> None:
        tag, known = arguments.lower(), self._texts.languages
        if tag in known or tag == AUTOMATIC:
            await self._languages.choose(user_ref(KEY.surface, USER_ID), tag if tag in known else None)
            self._chat.choose_language(tag if tag in known else None)
            self._print("console-language-set")
        else:
            self._print("console-language-usage", known=", ".join([*known, AUTOMATIC]))

    async def _persona(self, arguments: str) -> None:
        language, thread = self._chat.language, await self._turns.current(KEY)
        if not arguments:
            stored = thread.persona or (await self._preferences.get(self._scope)).persona
            self._print("persona-title-thread", current=personas.describe(self._texts, stored, language))
            for each in personas.BUILT_IN:
                self._terminal.print(f"  {each}: {self._texts.get(f'persona-{each}-about', language)}")
            self._print("console-persona-usage")
            return
        name = arguments.lower()
        stored = personas.built_in(name) if name in {*personas.BUILT_IN, STANDARD} else personas.own(arguments)
        await self._thread_list.set_persona(KEY, thread.id, stored)
        self._print("console-persona-set", name=personas.describe(self._texts, stored, language))

    def _print(self, key: str, **arguments: str) -> None:
        self._terminal.print(self._texts.get(key, self._chat.language, **arguments))


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

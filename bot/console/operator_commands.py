"""Commands of the console about the whole bot, and the comparison of two models."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from uuid import uuid4

from bot.console.chat import KEY, USER_ID, ConsoleChat
from bot.console.terminal import Terminal
from bot.operators.audit import AuditReports, AuditText
from bot.operators.broadcasts import BroadcastReports, excerpt, is_too_long
from bot.operators.people import BanCommands, StatisticsReports
from bot.operators.votes import VoteReports
from core.background import cancel_and_wait
from core.i18n import Texts
from core.messages import Incoming, user_ref
from services.admin.broadcasts import MAX_KEPT, Broadcasts, BroadcastState
from services.chat.reply import Reply, ReplyPhase
from services.compare.contest import Contest, Contests, PairUnavailable
from services.compare.votes import Votes, Winner

OLDER, NEWER = "older", "newer"
BROADCAST_ACTS = frozenset({"send", "stop", "discard"})


class OperatorCommands:
    """Runs `/stats`, `/audit`, `/broadcast`, `/ban_user`, `/unban_user`, `/compare` and `/vote`.

    The user of the console is the operator; ids of banned people are those of Telegram. Broadcasts are sent by the
    Telegram daemon that shares the database.
    """

    def __init__(  # noqa: PLR0913 - each command uses one or two of them
        self,
        chat: ConsoleChat,
        terminal: Terminal,
        texts: Texts,
        *,
        audit: AuditReports,
        statistics: StatisticsReports,
        bans: BanCommands,
        broadcasts: Broadcasts,
        broadcast_reports: BroadcastReports,
        contests: Contests,
        votes: Votes,
    ) -> None:
        self._chat = chat
        self._terminal = terminal
        self._texts = texts
        self._audit = audit
        self._statistics = statistics
        self._bans = bans
        self._broadcasts = broadcasts
        self._broadcast_reports = broadcast_reports
        self._contests = contests
        self._votes = votes
        self._reports = VoteReports(votes, texts)
        self._page: AuditText | None = None
        self._comparison: int | None = None
        self._shown: int | None = None
        """The broadcast last shown in this terminal."""

    @property
    def commands(self) -> Mapping[str, Callable[[str], Awaitable[None]]]:
        """The commands by name."""
        return {
            "/compare": self._compare,
            "/vote": self._vote,
            "/stats": self._stats,
            "/audit": self._audit_log,
            "/broadcast": self._broadcast,
            "/ban_user": self._ban,
            "/unban_user": self._unban,
        }

    async def _stats(self, _arguments: str) -> None:
        self._terminal.print(await self._statistics.report(self._chat.language))

    async def _audit_log(self, arguments: str) -> None:
        language, page = self._chat.language, self._page
        if arguments == OLDER and page is not None and page.page.older is not None:
            shown = await self._audit.show(page.kind, language, before=page.page.older)
        elif arguments == NEWER and page is not None and page.page.newer is not None:
            shown = await self._audit.show(page.kind, language, after=page.page.newer)
        else:
            shown = await self._audit.run(arguments, language)
        if isinstance(shown, str):
            self._terminal.print(shown)
            return
        self._page = shown
        self._terminal.print(shown.text)
        ways = [way for way, bound in ((NEWER, shown.page.newer), (OLDER, shown.page.older)) if bound is not None]
        if ways:
            self._terminal.print_dimmed(" ".join(f"/audit {way}" for way in ways))

    async def _ban(self, arguments: str) -> None:
        self._terminal.print(await self._bans.ban(arguments, USER_ID, self._chat.language))

    async def _unban(self, arguments: str) -> None:
        self._terminal.print(await self._bans.unban(arguments, USER_ID, self._chat.language))

    async def _broadcast(self, arguments: str) -> None:
        """Counts the recipients of a text; a word alone acts on the broadcast shown last."""
        language = self._chat.language
        if not arguments:
            self._terminal.print(await self._broadcast_reports.overview(language))
        elif arguments.lower() in BROADCAST_ACTS:
            await self._act_on_broadcast(arguments.lower())
        elif is_too_long(arguments):
            self._print("web-broadcast-invalid")
        else:
            draft = await self._broadcasts.draft(USER_ID, arguments, formatting=None, language=language)
            self._shown = draft.id
            self._terminal.print(self._broadcast_reports.progress(draft, language))
            if draft.total:
                self._print("console-broadcast-acts")

    async def _act_on_broadcast(self, act: str) -> None:
        # Not a newer draft of an operator in Telegram.
        own = [each for each in await self._broadcasts.newest(MAX_KEPT) if each.actor_id == USER_ID]
        shown = [each for each in own if each.id == self._shown]
        if act == "stop":
            shown = [each for each in (*shown, *own) if each.state is BroadcastState.RUNNING] or shown or own
        if not own:
            self._print("broadcast-gone")
            return
        if not shown:
            # Drafted in another terminal or session: its text is shown before it can be sent.
            self._shown = own[0].id
            self._terminal.print(excerpt(own[0].text))
            self._terminal.print(self._broadcast_reports.progress(own[0], self._chat.language))
            self._print("console-broadcast-again")
            return
        found, changed = shown[0], None
        match act:
            case "send" if changed := await self._broadcasts.start(found.id, USER_ID):
                self._print("console-broadcast-started")
            case "stop":
                changed = await self._broadcasts.stop(found.id, USER_ID)
            case "discard" if await self._broadcasts.discard(found.id):
                self._print("broadcast-discarded")
                return
            case _:
                pass
        # An act that the state does not allow only shows the state.
        self._terminal.print(self._broadcast_reports.progress(changed or found, self._chat.language))

    async def _compare(self, arguments: str) -> None:
        language = self._chat.language
        if arguments.lower() == "stats":
            self._terminal.print(await self._reports.standings(language))
            return
        try:
            contest = await self._contests.prepare(arguments, KEY.chat_ref, is_admin=True)
        except PairUnavailable as error:
            self._print(error.key, **error.arguments)
            return
        if not contest.question:
            self._print("compare-usage")
            return
        replies = await self._ask_both(contest, self._chat.incoming(contest.question))
        if all(reply.phase is ReplyPhase.COMPLETE for reply in replies):
            first, second = contest.contenders
            asker = user_ref(KEY.surface, USER_ID)
            self._comparison = await self._votes.open(asker, (first.name, second.name), f"console-{uuid4().hex}")
            self._print("console-vote")

    async def _ask_both(self, contest: Contest, incoming: Incoming) -> list[Reply]:
        """Asks both models at once, and prints the answers one after the other as they stream."""
        replies = [Reply(), Reply()]
        tasks = [
            asyncio.create_task(self._contests.answer(contest, each, incoming, reply), name="console.side")
            for each, reply in zip(contest.contenders, replies, strict=True)
        ]
        try:
            for side, reply in zip("AB", replies, strict=True):
                self._terminal.print_highlighted(side)
                await self._chat.print_answer(reply)
                self._chat.print_remarks(reply)
            await asyncio.gather(*tasks)
        finally:
            await cancel_and_wait(*tasks)
        return replies

    async def _vote(self, arguments: str) -> None:
        winner = next((each for each in Winner if each.value == arguments.lower()), None)
        if self._comparison is None or winner is None:
            self._print("console-vote" if self._comparison is not None else "compare-usage")
            return
        found = await self._votes.vote(self._comparison, user_ref(KEY.surface, USER_ID), winner)
        if found is not None:
            self._terminal.print(self._reports.result(found, self._chat.language))

    def _print(self, key: str, **arguments: str) -> None:
        self._terminal.print(self._texts.get(key, self._chat.language, **arguments))

"""`/stats`, `/ban_user` and `/unban_user`, in the operator's language."""

from collections.abc import Callable
from datetime import tzinfo

from bot.operators.formatting import format_cost
from core.i18n import Texts
from core.messages import Surface, chat_ref
from services.admin.bans import Ban, BanAct, Bans
from services.admin.statistics import PeriodFigures, Statistics

MAX_ID_DIGITS = 19
SHOWN_BANS = 20


class StatisticsReports:
    """The `/stats` command of Telegram and the console."""

    def __init__(self, statistics: Statistics, texts: Texts) -> None:
        self._statistics = statistics
        self._texts = texts

    async def report(self, language: str | None) -> str:
        """Returns the figures of the bot.

        Raises:
            StorageError: the database fails.
        """
        figures = await self._statistics.read()
        periods = [self._period(period, language) for period in figures.periods]
        now = self._texts.get(
            "stats-now", language, private=figures.private_chats, groups=figures.groups, threads=figures.threads,
            moderated=figures.moderated_groups, banned=figures.banned, dead=figures.dead_letters,
        )  # fmt: skip
        return "\n\n".join([*periods, now])

    def _period(self, period: PeriodFigures, language: str | None) -> str:
        usage = period.usage
        cost = format_cost(usage.cost_usd)
        if usage.unpriced:
            cost = self._texts.get("usage-partly-priced", language, cost=cost, unpriced=usage.unpriced)
        return self._texts.get(
            "stats-period", language, days=period.days, people=period.people, chats=period.chats,
            answers=usage.answers, requests=usage.requests, failures=usage.failures, tokens=usage.tokens, cost=cost,
            incidents=period.incidents,
        )  # fmt: skip


class BanCommands:
    """The `/ban_user` and `/unban_user` commands of Telegram and the console.

    Args:
        is_operator: whether a user, by their id, is one of ADMIN_IDS.
        zone: time zone of displayed times.
        surface: prefix of the ids that operators give.
    """

    def __init__(
        self,
        bans: Bans,
        is_operator: Callable[[int], bool],
        texts: Texts,
        zone: tzinfo,
        surface: Surface = Surface.TELEGRAM,
    ) -> None:
        self._bans = bans
        self._is_operator = is_operator
        self._texts = texts
        self._zone = zone
        self._surface = surface

    async def ban(self, arguments: str, actor_id: int, language: str | None, *, author_id: int | None = None) -> str:
        """Bans a person or a chat; without arguments returns the list of bans.

        Args:
            arguments: an id, and a reason.
            author_id: the author of the message that the command replies to; then the arguments are the reason.

        Raises:
            StorageError: the database fails.
        """
        if author_id is None and not arguments.strip():
            return await self._list(language)
        number, reason = _read_target(arguments, author_id)
        if number is None:
            return self._texts.get("ban-usage", language)
        if self._is_operator(number):
            return self._texts.get("ban-operator", language)
        act = await self._bans.ban(chat_ref(self._surface, number), actor_id, reason or None)
        return self._result("ban-done" if act.is_changed else "ban-already", number, act, language)

    async def unban(self, arguments: str, actor_id: int, language: str | None, *, author_id: int | None = None) -> str:
        """Lifts a ban; the arguments are those of `ban`.

        Raises:
            StorageError: the database fails.
        """
        number, _ = _read_target(arguments, author_id)
        if number is None:
            return self._texts.get("unban-usage", language)
        act = await self._bans.lift(chat_ref(self._surface, number), actor_id)
        return self._result("unban-done" if act.is_changed else "unban-none", number, act, language)

    async def _list(self, language: str | None) -> str:
        bans = await self._bans.newest(SHOWN_BANS)
        lines = [self._line(ban, language) for ban in bans] or [self._texts.get("ban-none", language)]
        return "\n".join([*lines, "", self._texts.get("ban-usage", language)])

    def _line(self, ban: Ban, language: str | None) -> str:
        label = ban.label.partition(":")[2] if ban.label else self._texts.get("ban-erased", language)
        reason = f": {ban.reason}" if ban.reason else ""
        return f"{ban.banned_at.astimezone(self._zone):%Y-%m-%d}, {label}{reason}"

    def _result(self, key: str, number: int, act: BanAct, language: str | None) -> str:
        text = self._texts.get(key, language, id=str(number))
        return text if act.is_audited else f"{text}\n{self._texts.get('not-audited', language)}"


def _read_target(arguments: str, author_id: int | None) -> tuple[int | None, str]:
    """Returns the person and the rest of the arguments."""
    word, _, rest = arguments.strip().partition(" ")
    if word.isascii() and word.removeprefix("-").isdecimal() and len(word) <= MAX_ID_DIGITS and int(word):
        return int(word), rest.strip()
    return author_id, arguments.strip()

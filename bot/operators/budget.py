"""`/budget`: the budgets of a user and a chat; operators also see those of providers and of all, and set budgets."""

from bot.operators.formatting import format_cost
from core.i18n import Texts
from services.admin.audit import Audit
from services.budgets.budgets import Budgets, BudgetState
from services.llm.routing.admission.budget_guard import BudgetKind
from services.llm.routing.fallback import LLMProviderFallback

MAX_USD = 1e6
MAX_ID_DIGITS = 19


class BudgetCommands:
    """The `/budget` command of Telegram and the console.

    Args:
        surface: prefix of the users and chats that operators name by their ids.
    """

    def __init__(
        self, budgets: Budgets, fallback: LLMProviderFallback, audit: Audit, texts: Texts, surface: str = "telegram"
    ) -> None:
        self._budgets = budgets
        self._fallback = fallback
        self._audit = audit
        self._texts = texts
        self._surface = surface

    async def report(self, speaker: str, chat: str | None, language: str | None) -> str:
        """Returns the budgets of a user, and of a group.

        Args:
            chat: the group in which the command was sent; None in a private chat.

        Raises:
            StorageError: the database fails.
        """
        state = await self._budgets.state(BudgetKind.USER, speaker)
        lines = [self._line("budget-yours", state, language)]
        if chat is not None:
            lines.append(self._line("budget-chat", await self._budgets.state(BudgetKind.CHAT, chat), language))
        renewal = f"{state.renews_at:%H:%M %Z}"
        return "\n".join([*lines, self._texts.get("budget-renewal", language, time=renewal)])

    async def run(self, arguments: str, actor_id: int, language: str | None) -> str:
        """Runs the command of an operator: the budgets of all, or `user|chat ID USD|none|default`.

        Raises:
            StorageError: the database fails.
        """
        match arguments.lower().split():
            case []:
                return await self._overview(language)
            case [("user" | "chat") as kind, number, written] if _is_id(number):
                return await self._set(BudgetKind(kind), int(number), written, actor_id, language)
            case _:
                return self._texts.get("budget-usage", language)

    async def _overview(self, language: str | None) -> str:
        lines = [self._line("budget-all", await self._budgets.state(BudgetKind.ALL), language)]
        for provider in self._fallback.providers:
            if provider.budget_day_usd is not None:
                state = await self._budgets.state_of(provider)
                lines.append(self._line("budget-provider", state, language, name=provider.id))
        for label, usd in (await self._budgets.labels()).items():
            lines.append(f"{label.replace(f'{self._surface}:', '')}: {self._amount(usd, language)}")
        return "\n".join([*lines, "", self._texts.get("budget-usage", language)])

    async def _set(self, kind: BudgetKind, number: int, written: str, actor_id: int, language: str | None) -> str:
        reference = f"{self._surface}:{number}"
        name = f"{kind} {number}"
        if written == "default":
            await self._budgets.clear_limit(kind, reference)
        elif written == "none":
            await self._budgets.set_limit(kind, reference, None)
        else:
            usd = _to_usd(written)
            if usd is None:
                return self._texts.get("budget-usage", language)
            await self._budgets.set_limit(kind, reference, usd)
        state = await self._budgets.state(kind, reference)
        done = self._texts.get("budget-set", language, name=name, limit=self._amount(state.limit_usd, language))
        if await self._audit.try_record(actor_id, "budget.set", name, written):
            return done
        return f"{done}\n{self._texts.get('not-audited', language)}"

    def _line(self, key: str, state: BudgetState, language: str | None, **arguments: str) -> str:
        spent, limit = format_cost(state.spent_usd), self._amount(state.limit_usd, language)
        return self._texts.get(key, language, spent=spent, limit=limit, **arguments)

    def _amount(self, usd: float | None, language: str | None) -> str:
        return self._texts.get("budget-none", language) if usd is None else format_cost(usd)


def _is_id(word: str) -> bool:
    return word.lstrip("-").isdecimal() and word.isascii() and len(word) <= MAX_ID_DIGITS


def _to_usd(word: str) -> float | None:
    try:
        usd = float(word.lstrip("$").replace(",", "."))
    except ValueError:
        return None
    return usd if 0 <= usd <= MAX_USD else None

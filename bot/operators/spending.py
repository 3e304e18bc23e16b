"""`/usage` and `/budget`: words the usage of a user, a chat and all, and their budgets, which operators set."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from bot.operators.formatting import Wording, format_cost
from core.i18n import Texts
from services.admin.audit import Audit, AuditDetail
from services.budgets.budgets import Budgets, BudgetState
from services.llm.routing.admission.budget_guard import BudgetKind
from services.llm.routing.fallback import LLMProviderFallback
from services.usage.totals import UsageTotal, UsageTotals

MAX_USD = 1e6
MAX_ID_DIGITS = 19


class UsageReports:
    """Texts of `/usage`. Each method raises StorageError where the database fails."""

    def __init__(self, totals: UsageTotals, texts: Texts) -> None:
        self._totals = totals
        self._texts = texts

    async def report(self, speaker: str, chat: str | None, language: str | None) -> str:
        """Returns the usage of a user, and of a group, today and this month.

        Args:
            chat: the group in which the command was sent; None in a private chat.
        """
        today, month = self._period_starts()
        lines = [
            self._format_line("usage-yours-today", await self._totals.of_speaker(speaker, today), language),
            self._format_line("usage-yours-month", await self._totals.of_speaker(speaker, month), language),
        ]
        if chat is not None:
            lines += [
                self._format_line("usage-chat-today", await self._totals.of_chat(chat, today), language),
                self._format_line("usage-chat-month", await self._totals.of_chat(chat, month), language),
            ]
        return "\n".join([*lines, self._texts.get("usage-days", language, zone=self._totals.zone_name)])

    async def report_all(self, language: str | None = None) -> str:
        """Returns the usage of all users by provider."""
        (today, month), say = self._period_starts(), Wording(self._texts, language)
        blocks = [
            _format_by_provider("operator-all-today", await self._totals.by_provider(today), say),
            _format_by_provider("operator-all-month", await self._totals.by_provider(month), say),
        ]
        return "\n\n".join(blocks)

    def _period_starts(self) -> tuple[date, date]:
        today = self._totals.today
        return today, today.replace(day=1)

    def _format_line(self, key: str, usage: UsageTotal, language: str | None) -> str:
        get = self._texts.get
        cost = self._format_cost(usage, language)
        amount = get("usage-amount", language, answers=usage.answers, tokens=usage.tokens, cost=cost)
        line = get(key, language, amount=amount)
        # Providers rarely report the tokens of an answer that was stopped.
        return f"{line} {get('usage-estimated', language)}" if usage.estimated else line

    def _format_cost(self, usage: UsageTotal, language: str | None) -> str:
        if usage.unpriced == 0:
            return format_cost(usage.cost_usd)
        if usage.cost_usd == 0:
            return self._texts.get("usage-no-price", language)
        unpriced = usage.unpriced
        return self._texts.get("usage-partly-priced", language, cost=format_cost(usage.cost_usd), unpriced=unpriced)


def _format_by_provider(key: str, usages: Mapping[str, UsageTotal], say: Wording) -> str:
    title = say.get(key)
    if not usages:
        return f"{title} {say.get('operator-nothing')}"
    return "\n".join(
        [title, *(f"{provider}: {_format_usage(usage, say)}" for provider, usage in sorted(usages.items()))]
    )


def _format_usage(usage: UsageTotal, say: Wording) -> str:
    tokens = say.get("operator-tokens", input=usage.input_tokens, output=usage.output_tokens)
    estimated = f" {say.get('operator-estimated', count=usage.estimated)}" if usage.estimated else ""
    return f"{say.requests(usage.requests, usage.failures)}, {tokens}{estimated}, {say.cost(usage)}"


@dataclass(frozen=True, slots=True)
class BudgetChange:
    """A budget that was set.

    Args:
        name: owner of the budget.
        before: the former one, as `set_limit` takes it.
        after: the one that was set, in the same form.
        audit_id: the act's entry in the audit log; None if the database rejected it.
    """

    name: str
    state: BudgetState
    before: str
    after: str
    audit_id: int | None


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
                return await self._set(BudgetKind(kind), number, written, actor_id, language)
            case _:
                return self._texts.get("budget-usage", language)

    async def _overview(self, language: str | None) -> str:
        lines = [
            self._line("budget-all" if name is None else "budget-provider", state, language, name=name or "")
            for name, state in await self.list_configured()
        ]
        for label, usd in (await self._budgets.limits.labels()).items():
            lines.append(f"{label.replace(f'{self._surface}:', '')}: {self._amount(usd, language)}")
        return "\n".join([*lines, "", self._texts.get("budget-usage", language)])

    async def set_limit(self, kind: BudgetKind, number: str, written: str, actor_id: int) -> BudgetChange | None:
        """Sets the budget of a user or a chat; None if the id or the amount cannot be read.

        Args:
            written: USD, `none`, or `default` for the budget of the settings.

        Raises:
            StorageError: the database fails.
        """
        usd = None if written in {"none", "default"} else _to_usd(written)
        if not _is_id(number) or (usd is None and written not in {"none", "default"}):
            return None
        reference = f"{self._surface}:{int(number)}"
        before = await self.find_limit(kind, number)
        if written == "default":
            await self._budgets.clear_limit(kind, reference)
        else:
            await self._budgets.set_limit(kind, reference, usd)
        name = f"{kind} {int(number)}"
        state = await self._budgets.state(kind, reference)
        detail = AuditDetail("budget", {"now": written, "before": before})
        after = written if usd is None else _write_usd(usd)
        audit_id = await self._audit.try_record(actor_id, "budget.set", name, detail)
        return BudgetChange(name, state, before, after, audit_id)

    async def find_limit(self, kind: BudgetKind, number: str) -> str:
        """Returns the budget of a user or a chat as `set_limit` takes it.

        Raises:
            StorageError: the database fails.
        """
        labels = await self._budgets.limits.labels()
        label = f"{kind}:{self._surface}:{int(number)}"
        if label not in labels:
            return "default"
        usd = labels[label]
        return "none" if usd is None else _write_usd(usd)

    async def list_set(self) -> list[tuple[str, BudgetState]]:
        """Returns the budgets of users and chats that operators set, by name.

        Raises:
            StorageError: the database fails.
        """
        found: list[tuple[str, BudgetState]] = []
        for label in await self._budgets.limits.labels():
            kind, _, reference = label.partition(":")
            name = f"{kind} {reference.removeprefix(f'{self._surface}:')}"
            found.append((name, await self._budgets.state(BudgetKind(kind), reference)))
        return found

    async def list_configured(self) -> list[tuple[str | None, BudgetState]]:
        """Returns the budget of all requests, under None, and those of the providers that have one.

        Raises:
            StorageError: the database fails.
        """
        providers = [each for each in self._fallback.providers if each.budget_day_usd is not None]
        everything: list[tuple[str | None, BudgetState]] = [(None, await self._budgets.state(BudgetKind.ALL))]
        return everything + [(each.id, await self._budgets.state_of(each)) for each in providers]

    async def _set(self, kind: BudgetKind, number: str, written: str, actor_id: int, language: str | None) -> str:
        change = await self.set_limit(kind, number, written, actor_id)
        if change is None:
            return self._texts.get("budget-usage", language)
        limit = self._amount(change.state.limit_usd, language)
        done = self._texts.get("budget-set", language, name=change.name, limit=limit)
        return done if change.audit_id is not None else f"{done}\n{self._texts.get('not-audited', language)}"

    def _line(self, key: str, state: BudgetState, language: str | None, **arguments: str) -> str:
        spent, limit = format_cost(state.spent_usd), self._amount(state.limit_usd, language)
        return self._texts.get(key, language, spent=spent, limit=limit, **arguments)

    def _amount(self, usd: float | None, language: str | None) -> str:
        return self._texts.get("budget-none", language) if usd is None else format_cost(usd)


def _is_id(word: str) -> bool:
    return word.lstrip("-").isdecimal() and word.isascii() and len(word) <= MAX_ID_DIGITS


def _write_usd(usd: float) -> str:
    return f"{usd:.9f}".rstrip("0").rstrip(".")


def _to_usd(word: str) -> float | None:
    try:
        usd = float(word.lstrip("$").replace(",", "."))
    except ValueError:
        return None
    return usd if 0 <= usd <= MAX_USD else None

"""`/usage`: words the usage of a user and a chat, and for operators that of all users by provider."""

from collections.abc import Mapping
from datetime import date

from bot.operators.formatting import Wording, format_cost
from core.i18n import Texts
from services.usage.totals import UsageTotal, UsageTotals


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

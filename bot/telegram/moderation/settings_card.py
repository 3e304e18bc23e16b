"""What `/moderation` shows: a group's settings with their buttons, and its figures."""

from datetime import timedelta

from aiogram.types import InlineKeyboardMarkup, Message

from bot.telegram.api.messages import message_speaker
from bot.telegram.moderation.keyboards import settings_keyboard
from bot.telegram.moderation.labels import label
from core.i18n import DEFAULT_LANGUAGE, Texts
from core.messages import Surface, chat_ref
from services.moderation.domain.settings import GroupSettings
from services.moderation.judging.consent import RemoteJudgingConsent
from services.moderation.judging.judge import CONTEXT
from services.moderation.records.counts import DailyCounts
from services.moderation.records.groups import GroupStore
from services.usage.totals import UsageTotals

STATISTICS_DAYS = 30


class SettingsCard:
    """Words the settings and the statistics of a group."""

    def __init__(
        self,
        groups: GroupStore,
        consent: RemoteJudgingConsent,
        counts: DailyCounts,
        totals: UsageTotals,
        texts: Texts,
    ) -> None:
        self._groups = groups
        self._consent = consent
        self._counts = counts
        self._totals = totals
        self._texts = texts

    async def settings_at(self, message: Message) -> GroupSettings:
        """The settings of a group; of one that nobody has set anything in, what it would begin with."""
        known = await self._groups.read(message.chat.id)
        if known is not None:
            return known
        spoken = (message_speaker(message).language or DEFAULT_LANGUAGE).partition("-")[0]
        language = spoken if spoken in self._texts.languages else DEFAULT_LANGUAGE
        return GroupSettings(message.chat.id, language=language)

    async def card(self, settings: GroupSettings) -> tuple[str, InlineKeyboardMarkup]:
        """All settings, and the buttons that change them."""
        texts, language = self._texts, settings.language
        remote = await self._consent.is_allowed(settings)

        def answer(*, is_so: bool) -> str:
            return texts.get("moderation-yes" if is_so else "moderation-no", language)

        text = texts.get(
            "moderation-settings",
            language,
            mode=label(texts, language, "moderation-mode", settings.mode),
            preset=label(texts, language, "moderation-preset", settings.preset),
            language=language,
            ban=answer(is_so=settings.ban_allowed),
            remote=answer(is_so=remote),
            cards=texts.get(
                "moderation-cards-here" if settings.cards_to is None else "moderation-cards-person", language
            ),
            budget=settings.budget,
            reports=settings.report_threshold,
        )
        return text, settings_keyboard(texts, settings, remote=remote)

    async def statistics(self, settings: GroupSettings) -> str:
        """The figures of the last weeks."""
        texts, language = self._texts, settings.language
        figures = await self._counts.total(settings.group_id, STATISTICS_DAYS)
        since = self._totals.today - timedelta(days=STATISTICS_DAYS - 1)
        used = await self._totals.of_purpose(chat_ref(Surface.TELEGRAM, settings.group_id), CONTEXT, since)
        key = "moderation-cost-partly" if used.unpriced else "moderation-cost"
        cost = texts.get(key, language, dollars=f"{used.cost_usd:.4f}", unpriced=used.unpriced)
        return texts.get(
            "moderation-stats",
            language,
            days=STATISTICS_DAYS,
            seen=figures.seen,
            judged=figures.judged,
            asked=figures.asked,
            share=f"{100 * figures.asked / figures.seen:.0f}" if figures.seen else "0",
            unjudged=figures.unjudged,
            acted=figures.acted,
            carded=figures.carded,
            undone=figures.undone,
            input=figures.input_tokens,
            output=figures.output_tokens,
            cost=cost,
        )

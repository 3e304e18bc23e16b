"""Renders a group's settings with their buttons, and its statistics."""

from datetime import timedelta
from typing import Self

from aiogram.filters.callback_data import CallbackData
from aiogram.types import InlineKeyboardButton, InlineKeyboardMarkup, Message
from pydantic import model_validator

from bot.telegram.answers.keyboards import build_keyboard, button
from bot.telegram.api.updates import message_speaker
from core.i18n import DEFAULT_LANGUAGE, Texts
from core.messages import Surface, chat_ref
from services.moderation.domain.settings import GroupSettings, Mode, Preset
from services.moderation.judging.judge import CONTEXT
from services.moderation.records.counts import DailyCounts
from services.moderation.records.groups import GroupStore, RemoteJudgingConsent
from services.usage.totals import UsageTotals

STATISTICS_DAYS = 30
MAX_LIST = 500
"""Characters shown of the banned words, and of the domains."""
_SWITCH = frozenset({"0", "1"})
SETTING_VALUES = {
    "mode": frozenset(Mode),
    "preset": frozenset(Preset),
    "ban": _SWITCH,
    "remote": _SWITCH,
    "cards": frozenset({"here", "me"}),
    "page": frozenset({"settings", "rules", "lists", "stats"}),
    "rule": frozenset({"flood", "duplicates", "mixed", "links", "forwards", "media"}),
}
"""The values of each setting; those of `language` are the languages of the texts."""


class ChangeSetting(CallbackData, prefix="mod"):
    """Sets a setting of the group in which it is pressed to a value, or turns to a page."""

    what: str
    value: str

    @model_validator(mode="after")
    def _check_value(self) -> Self:
        if self.what != "language" and self.value not in SETTING_VALUES.get(self.what, ()):
            raise ValueError("not a value of this setting")
        return self


class SettingsCard:
    """Reads a group's settings and renders them."""

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

    async def read_settings(self, message: Message) -> GroupSettings:
        """Returns the settings of a message's group; the defaults, in the author's language, if none are stored."""
        stored = await self._groups.read(message.chat.id)
        if stored is not None:
            return stored
        preferred = (message_speaker(message).language or DEFAULT_LANGUAGE).partition("-")[0]
        language = preferred if preferred in self._texts.languages else DEFAULT_LANGUAGE
        return GroupSettings(message.chat.id, language=language)

    async def render(self, settings: GroupSettings) -> tuple[str, InlineKeyboardMarkup]:
        """Renders all settings, and the buttons that change them."""
        texts, language = self._texts, settings.language
        remote = await self._consent.is_allowed(settings)

        def yes_or_no(*, value: bool) -> str:
            return texts.get("moderation-yes" if value else "moderation-no", language)

        text = texts.get(
            "moderation-settings",
            language,
            mode=texts.get(f"moderation-mode-{settings.mode}", language),
            preset=texts.get(f"moderation-preset-{settings.preset}", language),
            language=language,
            ban=yes_or_no(value=settings.ban_allowed),
            remote=yes_or_no(value=remote),
            cards=self._name_cards_chat(settings),
            budget=settings.budget,
            reports=settings.report_threshold,
        )
        return text, settings_keyboard(texts, settings, remote=remote)

    def _name_cards_chat(self, settings: GroupSettings) -> str:
        match settings.cards_to:
            case None:
                return self._texts.get("moderation-cards-here", settings.language)
            case int(chat_id) if chat_id > 0:
                return self._texts.get("moderation-cards-person", settings.language)
            case chat_id:
                return self._texts.get("moderation-cards-chat", settings.language, id=str(chat_id))

    def render_lists(self, settings: GroupSettings) -> str:
        """Renders the written rules and the lists of words and domains."""
        rules, language, texts = settings.rules, settings.language, self._texts
        none = texts.get("moderation-none", language)
        return texts.get(
            "moderation-rules-card",
            language,
            words=settings.house_rules or texts.get("moderation-rules-none", language),
            links=texts.get(f"moderation-links-{rules.links}", language),
            forwards=texts.get(f"moderation-whom-{rules.forwards}", language),
            banned=", ".join(rules.banned)[:MAX_LIST] or none,
            domains=", ".join(rules.domains)[:MAX_LIST] or none,
        )

    async def render_page(self, settings: GroupSettings, page: str) -> tuple[str, InlineKeyboardMarkup]:
        """Renders a page: `settings`, `rules`, `lists` or `stats`."""
        back = build_keyboard([[_option(self._texts.get("button-back", settings.language), "page", "settings")]])
        match page:
            case "lists":
                return self.render_lists(settings), back
            case "stats":
                return await self.render_statistics(settings), back
            case "rules":
                return (await self.render(settings))[0], rules_keyboard(self._texts, settings)
            case _:
                return await self.render(settings)

    async def render_statistics(self, settings: GroupSettings) -> str:
        """Renders the counts and the cost of the last `STATISTICS_DAYS` days."""
        texts, language = self._texts, settings.language
        counts = await self._counts.total(settings.group_id, STATISTICS_DAYS)
        since = self._totals.today - timedelta(days=STATISTICS_DAYS - 1)
        used = await self._totals.of_purpose(chat_ref(Surface.TELEGRAM, settings.group_id), CONTEXT, since)
        key = "moderation-cost-partly" if used.unpriced else "moderation-cost"
        cost = texts.get(key, language, dollars=f"{used.cost_usd:.4f}", unpriced=used.unpriced)
        return texts.get(
            "moderation-stats",
            language,
            days=STATISTICS_DAYS,
            seen=counts.seen,
            judged=counts.judged,
            asked=counts.asked,
            share=f"{100 * counts.asked / counts.seen:.0f}" if counts.seen else "0",
            unjudged=counts.unjudged,
            acted=counts.acted,
            carded=counts.carded,
            undone=counts.undone,
            input=counts.input_tokens,
            output=counts.output_tokens,
            cost=cost,
        )


def settings_keyboard(texts: Texts, settings: GroupSettings, *, remote: bool) -> InlineKeyboardMarkup:
    """Builds the buttons of all settings; current values are ticked."""
    language = settings.language
    ban, cards_to = settings.ban_allowed, settings.cards_to
    return build_keyboard(
        [
            [
                _option(texts.get(f"button-mode-{mode}", language), "mode", mode, ticked=mode is settings.mode)
                for mode in Mode
            ],
            [
                _option(
                    texts.get(f"button-preset-{preset}", language),
                    "preset",
                    preset,
                    ticked=preset is settings.preset,
                )
                for preset in Preset
            ],
            [_option(name, "language", name, ticked=name == language) for name in texts.languages],
            [
                _option(texts.get("button-ban-allowed", language), "ban", str(int(not ban)), ticked=ban),
                _option(texts.get("button-remote", language), "remote", str(int(not remote)), ticked=remote),
            ],
            [
                _option(texts.get("button-cards-here", language), "cards", "here", ticked=cards_to is None),
                _option(texts.get("button-cards-me", language), "cards", "me", ticked=(cards_to or 0) > 0),
            ],
            [
                _option(texts.get("button-rules", language), "page", "rules"),
                _option(texts.get("button-lists", language), "page", "lists"),
                _option(texts.get("button-stats", language), "page", "stats"),
            ],
        ]
    )


def rules_keyboard(texts: Texts, settings: GroupSettings) -> InlineKeyboardMarkup:
    """Builds the buttons of the rules that can be switched."""
    rules, language = settings.rules, settings.language
    flood, duplicates = rules.flood is not None, rules.duplicates is not None
    links = texts.get(f"moderation-links-{rules.links}", language)
    forwards = texts.get(f"moderation-whom-{rules.forwards}", language)
    return build_keyboard(
        [
            [
                _option(texts.get("button-rule-flood", language), "rule", "flood", ticked=flood),
                _option(texts.get("button-rule-duplicates", language), "rule", "duplicates", ticked=duplicates),
            ],
            [_option(texts.get("button-rule-mixed", language), "rule", "mixed", ticked=rules.mixed_scripts)],
            [_option(texts.get("button-rule-links", language, value=links), "rule", "links")],
            [_option(texts.get("button-rule-forwards", language, value=forwards), "rule", "forwards")],
            [_option(texts.get("button-rule-media", language), "rule", "media", ticked=bool(rules.newcomer_media))],
            [_option(texts.get("button-back", language), "page", "settings")],
        ]
    )


def _option(text: str, what: str, value: str, *, ticked: bool = False) -> InlineKeyboardButton:
    return button(f"✓ {text}" if ticked else text, ChangeSetting(what=what, value=value))

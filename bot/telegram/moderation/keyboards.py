"""The buttons of moderation, and what they carry (64 bytes at most)."""

from aiogram.filters.callback_data import CallbackData
from aiogram.types import InlineKeyboardButton, InlineKeyboardMarkup

from bot.telegram.moderation.labels import label
from core.i18n import Texts
from services.moderation.domain.incident import Incident, Resolution
from services.moderation.domain.policy import Sanction
from services.moderation.domain.settings import GroupSettings, Mode, Preset


class Resolve(CallbackData, prefix="inc"):
    """An admin's decision about an incident."""

    what: Resolution
    incident: int


class Choose(CallbackData, prefix="mod"):
    """A setting of the group in which it is pressed: which, and what it is to become."""

    what: str
    value: str


def incident_keyboard(texts: Texts, incident: Incident, language: str) -> InlineKeyboardMarkup | None:
    """What can still be done about an incident."""
    if incident.undone_by is not None or incident.is_erased:
        return None

    def button(label: str, what: Resolution) -> InlineKeyboardButton:
        return InlineKeyboardButton(text=label, callback_data=Resolve(what=what, incident=incident.id).pack())

    row = [button(texts.get("button-undo", language), Resolution.UNDO)]
    if incident.confirmed_by is None:
        row.append(button(texts.get("button-confirm", language), Resolution.CONFIRM))
    if incident.banned_by is None and incident.finding.plan.sanction is not Sanction.BAN:
        row.append(button(texts.get("button-ban", language), Resolution.BAN))
    return InlineKeyboardMarkup(inline_keyboard=[row])


def settings_keyboard(texts: Texts, settings: GroupSettings, *, remote: bool) -> InlineKeyboardMarkup:
    """All settings of a group; what holds is ticked."""
    language = settings.language
    languages = [_choice(name, "language", name, ticked=name == language) for name in texts.languages]
    switches = [
        _choice(
            texts.get("button-ban-allowed", language),
            "ban",
            str(int(not settings.ban_allowed)),
            ticked=settings.ban_allowed,
        ),
        _choice(texts.get("button-remote", language), "remote", str(int(not remote)), ticked=remote),
    ]
    cards = [
        _choice(texts.get("button-cards-here", language), "cards", "here", ticked=settings.cards_to is None),
        _choice(texts.get("button-cards-me", language), "cards", "me", ticked=settings.cards_to is not None),
    ]
    rows = [
        [
            _choice(label(texts, language, "button-mode", mode), "mode", mode, ticked=mode is settings.mode)
            for mode in Mode
        ],
        [
            _choice(label(texts, language, "button-preset", preset), "preset", preset, ticked=preset is settings.preset)
            for preset in Preset
        ],
        languages,
        switches,
        cards,
        [_choice(texts.get("button-rules", language), "page", "rules", ticked=False)],
    ]
    return InlineKeyboardMarkup(inline_keyboard=rows)


def rules_keyboard(texts: Texts, settings: GroupSettings) -> InlineKeyboardMarkup:
    """The rules that a button can switch."""
    rules, language = settings.rules, settings.language
    links = label(texts, language, "moderation-links", rules.links)
    forwards = label(texts, language, "moderation-whom", rules.forwards)
    rows = [
        [
            _choice(texts.get("button-rule-flood", language), "rule", "flood", ticked=rules.flood is not None),
            _choice(
                texts.get("button-rule-duplicates", language),
                "rule",
                "duplicates",
                ticked=rules.duplicates is not None,
            ),
        ],
        [_choice(texts.get("button-rule-mixed", language), "rule", "mixed", ticked=rules.mixed_scripts)],
        [_choice(texts.get("button-rule-links", language, value=links), "rule", "links", ticked=False)],
        [_choice(texts.get("button-rule-forwards", language, value=forwards), "rule", "forwards", ticked=False)],
        [_choice(texts.get("button-rule-media", language), "rule", "media", ticked=bool(rules.newcomer_media))],
        [_choice(texts.get("button-back", language), "page", "settings", ticked=False)],
    ]
    return InlineKeyboardMarkup(inline_keyboard=rows)


def _choice(label: str, what: str, value: str, *, ticked: bool) -> InlineKeyboardButton:
    data = Choose(what=what, value=value)
    return InlineKeyboardButton(text=f"✓ {label}" if ticked else label, callback_data=data.pack())

"""Incident cards for a group's admins, laid out within Telegram's limits, and notices to admins and members."""

from aiogram.enums import MessageEntityType
from aiogram.filters.callback_data import CallbackData
from aiogram.types import InlineKeyboardMarkup, MessageEntity

from bot.telegram.answers.keyboards import build_keyboard, button
from bot.telegram.api.group_admins import GroupAdmins
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.outgoing import SendResult
from bot.telegram.markdown.render import Rendered, utf16_length
from core.i18n import Texts
from services.moderation.domain.incident import Incident, Resolution, Source
from services.moderation.domain.policy import WARNINGS_TO_MUTE, Sanction
from services.moderation.domain.ports import ActionResult, CardLocation, Standing
from services.moderation.domain.settings import GroupSettings
from services.moderation.domain.verdict import Evidence
from services.moderation.text.links import defang

MAX_UNITS = 4096
"""Telegram's limit of a message, in UTF-16 code units."""
MAX_LINE = 400
"""Units of a line."""
MAX_OTHER = 250
"""Units of each further text on a shared card."""
MAX_NAME, MAX_EVIDENCE = 130, 300
"""Units of an author's name and of evidence."""
FAILURES = frozenset(result.value for result in ActionResult if not result.is_effective)


def cut(text: str, units: int) -> str:
    """Returns a text of at most this many UTF-16 code units; a longer one ends with an ellipsis."""
    if utf16_length(text) <= units:
        return text
    kept, left = list[str](), units - 1
    for char in text:
        left -= utf16_length(char)
        if left < 0:
            break
        kept.append(char)
    return f"{''.join(kept)}…" if units > 0 else ""


class CardPage:
    """Lines of a card, parts of which are spoilers."""

    def __init__(self) -> None:
        self._text = ""
        self._hidden: list[MessageEntity] = []

    def add(self, line: str, *, hidden: str | None = None) -> None:
        """Appends a line; `hidden` is the part of it that becomes a spoiler."""
        line = cut(line, min(MAX_LINE, MAX_UNITS - utf16_length(self._text) - 1))
        if hidden and (at := line.find(hidden)) >= 0:
            self._hide(line[:at], hidden)
        self._text += f"{line}\n"

    def add_texts(self, first: str, others: tuple[str, ...]) -> None:
        """Appends people's texts as spoilers, in the rest of the page; the first gets the most."""
        left = MAX_UNITS - utf16_length(self._text)
        shown = [cut(defang(text).strip(), MAX_OTHER) for text in others]
        while shown and sum(utf16_length(text) + 2 for text in shown) > left // 2:
            shown.pop()
        left -= sum(utf16_length(text) + 2 for text in shown)
        for text in (cut(defang(first).strip(), left), *shown):
            if text:
                self._hide("", text)
                self._text += f"{text}\n\n"

    def render(self) -> Rendered:
        """Returns the text with its spoilers."""
        return Rendered(self._text.rstrip("\n"), tuple(self._hidden))

    def _hide(self, before: str, hidden: str) -> None:
        offset = utf16_length(self._text + before)
        self._hidden.append(MessageEntity(type=MessageEntityType.SPOILER, offset=offset, length=utf16_length(hidden)))


class ResolveIncident(CallbackData, prefix="inc"):
    """An admin's decision about an incident."""

    what: Resolution
    incident: int


class IncidentCards:
    """Posts and edits incident cards, and sends notices, to the group or to the admin who gets its cards.

    Whether that person is still an admin is asked for anew each time; a former admin gets nothing more in private.
    """

    def __init__(self, delivery: Delivery, admins: GroupAdmins, texts: Texts) -> None:
        self._delivery = delivery
        self._admins = admins
        self._texts = texts

    async def show(self, incident: Incident, settings: GroupSettings) -> CardLocation | None:
        """Posts an incident's card: in the chat that the admins chose for the cards, or in the group."""
        card, markup = self._render(incident, settings.language), self._keyboard(incident, settings.language)
        group = (settings.group_id, incident.finding.topic_id or None)
        recipient = await self._find_recipient(settings)
        for chat_id, topic_id in ((recipient, None), group) if recipient is not None else (group,):
            sent = await self._delivery.send(chat_id, card, topic_id=topic_id, markup=markup)
            if sent is not None:
                return CardLocation(sent.chat_id, sent.message_id)
        return None

    async def locate(self, settings: GroupSettings) -> int:
        """Returns the id of the chat that gets the cards at this moment."""
        return await self._find_recipient(settings) or settings.group_id

    def held_s(self, settings: GroupSettings) -> float:
        """Returns the seconds for which flood control holds the chat that gets the cards, 0 if it does not."""
        return self._delivery.held_s(settings.cards_to or settings.group_id)

    async def refresh(self, incident: Incident, settings: GroupSettings) -> bool:
        """Edits a card to the incident's current state; returns False if flood control prevented it."""
        if incident.card_chat_id is None or incident.card_message_id is None:
            return True
        is_private = incident.card_chat_id > 0
        if is_private and not incident.is_erased and not await self._is_admin(settings, incident.card_chat_id):
            await self._delivery.edit_markup(incident.card_chat_id, incident.card_message_id, None)
            return True
        card, markup = self._render(incident, settings.language), self._keyboard(incident, settings.language)
        outcome = await self._delivery.edit(
            incident.card_chat_id, incident.card_message_id, card, markup=markup, final=False
        )
        return outcome.result is not SendResult.SKIPPED

    async def warn(self, incident: Incident, settings: GroupSettings, count: int) -> None:
        """Replies to the author of an incident with warning number `count`."""
        finding = incident.finding
        key = "moderation-warned-muted" if count >= WARNINGS_TO_MUTE else "moderation-warned"
        text = self._texts.get(key, settings.language, name=finding.author.name, count=count)
        await self._delivery.send(
            finding.group_id, Rendered(text), topic_id=finding.topic_id or None, reply_to=finding.message_ids[0]
        )

    async def alert(self, settings: GroupSettings, key: str, **arguments: str | int) -> None:
        """Sends a notice by text key to the chat that gets the cards, or in the group if that fails."""
        text = Rendered(self._texts.get(key, settings.language, **arguments))
        recipient = await self._find_recipient(settings)
        if recipient is not None and await self._delivery.send(recipient, text) is not None:
            return
        await self._delivery.send(settings.group_id, text)

    async def _find_recipient(self, settings: GroupSettings) -> int | None:
        """Returns the chat that gets the cards in place of the group; a person only while they are an admin."""
        chat_id = settings.cards_to
        is_allowed = chat_id is not None and (chat_id < 0 or await self._is_admin(settings, chat_id))
        return chat_id if is_allowed else None

    async def _is_admin(self, settings: GroupSettings, user_id: int) -> bool:
        return await self._admins.fetch_standing(settings.group_id, user_id) is Standing.ADMIN

    def _keyboard(self, incident: Incident, language: str) -> InlineKeyboardMarkup | None:
        """Builds the decisions that are still open; None for an incident that is undone or erased."""
        if incident.undone_by is not None or incident.is_erased:
            return None
        choices = [("button-undo", Resolution.UNDO)]
        if incident.confirmed_by is None:
            choices.append(("button-confirm", Resolution.CONFIRM))
        if incident.banned_by is None and incident.finding.plan.sanction is not Sanction.BAN:
            choices.append(("button-ban", Resolution.BAN))
        row = [
            button(self._texts.get(key, language), ResolveIncident(what=resolution, incident=incident.id))
            for key, resolution in choices
        ]
        return build_keyboard([row])

    def _render(self, incident: Incident, language: str) -> Rendered:
        """Renders a card; the message text is hidden under a spoiler."""
        finding, texts = incident.finding, self._texts
        page = CardPage()
        for line in (self._render_summary(incident, language), *self._render_failures(incident, language)):
            page.add(line)
        if not incident.is_erased:
            name = cut(defang(finding.author.name), MAX_NAME)
            page.add(texts.get("moderation-who", language, name=name, id=str(finding.author.id)))
        if incident.tally.messages > 1:
            tally = incident.tally
            counts = {"messages": tally.messages, "authors": tally.authors, "restricted": tally.restricted}
            page.add(texts.get("moderation-tally", language, **counts))
        page.add(self._render_reason(incident, language))
        self._add_evidence(incident, language, page)
        for key, name in (
            ("moderation-confirmed", incident.confirmed_by),
            ("moderation-banned", incident.banned_by),
            ("moderation-undone", incident.undone_by),
        ):
            if name is not None:
                page.add(texts.get(key, language, name=name))
        page.add("")
        if incident.is_erased:
            page.add(texts.get("moderation-erased", language))
        elif not finding.text:
            page.add(texts.get("moderation-no-text", language))
        else:
            page.add(texts.get("moderation-message", language))
            page.add_texts(finding.text, incident.tally.texts)
        return page.render()

    def _render_summary(self, incident: Incident, language: str) -> str:
        """Renders the actions that were taken, or in a dry run would have been."""
        finding, texts = incident.finding, self._texts
        plan = finding.plan
        if not finding.dry_run and not incident.has_acted and incident.deleted is None:
            return texts.get("moderation-look", language)
        actions: list[str] = []
        if finding.dry_run or incident.deleted in {ActionResult.DONE, ActionResult.GONE}:
            actions += [texts.get("moderation-act-delete", language)] if plan.delete or incident.deleted else []
        if plan.sanction is not Sanction.NONE and (finding.dry_run or incident.sanctioned not in FAILURES):
            actions.append(self._render_sanction(incident, language))
        if not actions:
            return texts.get("moderation-look", language)
        key = "moderation-dry" if finding.dry_run else "moderation-done"
        return texts.get(key, language, acts=", ".join(actions))

    def _render_sanction(self, incident: Incident, language: str) -> str:
        kind, _, count = (incident.sanctioned or "").partition(" ")
        if count:
            return self._texts.get(f"moderation-act-{kind}", language, count=count)
        return self._texts.get(f"moderation-act-{incident.finding.plan.sanction}", language)

    def _render_failures(self, incident: Incident, language: str) -> list[str]:
        results = (
            ("moderation-failed-delete", incident.deleted),
            ("moderation-failed-sanction", incident.sanctioned),
        )
        return [
            self._texts.get(key, language, reason=self._texts.get(f"moderation-reason-{result}", language))
            for key, result in results
            if result in FAILURES
        ]

    def _render_reason(self, incident: Incident, language: str) -> str:
        finding = incident.finding
        if finding.source is Source.JUDGE:
            category = self._texts.get(f"moderation-category-{finding.category}", language)
            return self._texts.get(
                "moderation-why-judge",
                language,
                category=category,
                confidence=finding.confidence,
                provider=finding.provider or "",
            )
        return self._texts.get(
            f"moderation-why-{finding.source}", language, detail=defang(finding.detail), confidence=finding.confidence
        )

    def _add_evidence(self, incident: Incident, language: str, page: CardPage) -> None:
        finding = incident.finding
        if finding.source is not Source.JUDGE or incident.is_erased:
            return
        match finding.detail:
            case Evidence.MISSING:
                page.add(self._texts.get("moderation-evidence-missing", language))
            case Evidence.NAME:
                page.add(self._texts.get("moderation-evidence-name", language))
            case _ if finding.evidence:
                evidence = cut(defang(" ".join(finding.evidence.split())), MAX_EVIDENCE)
                page.add(self._texts.get("moderation-evidence", language, evidence=evidence), hidden=evidence)
            case _:
                return

"""Reads the words and links that a message carries outside its text: cards, files, polls, checklists, buttons."""

import re
from collections.abc import Iterator

from aiogram.enums import MessageEntityType
from aiogram.types import (
    Chat,
    ExternalReplyInfo,
    InlineKeyboardMarkup,
    Message,
    MessageEntity,
    MessageOriginHiddenUser,
    MessageOriginUser,
    Poll,
)

from services.moderation.screening.screener import is_plain_name

_PLAIN_FILE_NAME = re.compile(
    r"(?:(?:img|dsc|dcim|pxl|vid|video|mov|photo|image|screenshot|screen|scan|document|doc|file|audio|voice|rec|recording"
    r"|whatsapp|telegram|изображение|фото|видео|документ|файл|скриншот|from|at|of|и|от|\d+|[a-f\d]{8,})[\W_]*)+\.?\w{0,5}",
    re.IGNORECASE,
)
"""A name that a camera or a program gave: it says nothing."""
_VCARD_WORDS = re.compile(
    r"^(?:item\d{1,3}\.)?(?:NOTE|URL|ORG|TITLE|ROLE|NICKNAME|EMAIL|ADR|LABEL|X-[A-Z-]{1,40})[^:\n]{0,60}:(.{1,300})$",
    re.MULTILINE | re.IGNORECASE,
)
_VCARD_FOLD = re.compile(r"\r?\n[ \t]")
"""The break of a long line, https://www.rfc-editor.org/rfc/rfc6350#section-3.2"""


def read_attached_words(message: Message | ExternalReplyInfo) -> Iterator[str]:
    """Yields the words of everything attached to a message; of a quoted one, too."""
    contact, venue, checklist = message.contact, message.venue, message.checklist
    if message.poll is not None:
        yield from _poll_words(message.poll)
    if contact is not None:
        yield " ".join(name for name in (contact.first_name, contact.last_name) if name)
        vcard = _VCARD_FOLD.sub("", contact.vcard or "").replace("\r", "")
        yield from (found[1].strip(" ;") for found in _VCARD_WORDS.finditer(vcard))
    if venue is not None:
        yield from (venue.title, venue.address)
    if checklist is not None:
        yield checklist.title
        yield from (task.text for task in checklist.tasks)
    if message.story is not None:
        # Telegram shows a story of a person under their name, which may be all of the advert.
        yield message.story.chat.full_name
    yield from _file_names(message)
    yield from _offers(message)


def read_event_words(message: Message) -> Iterator[str]:
    """Yields the words of a member in an event of the chat: a topic's name, an added task or poll option."""
    created, edited = message.forum_topic_created, message.forum_topic_edited
    if created is not None and not created.is_name_implicit:
        yield created.name
    if edited is not None:
        yield edited.name or ""
    if message.checklist_tasks_added is not None:
        yield from (task.text for task in message.checklist_tasks_added.tasks)
    if message.poll_option_added is not None:
        yield message.poll_option_added.option_text


def read_origin(message: Message) -> str:
    """Returns the name over a forward: of a chat, or of a person where it says more than a name."""
    origin = message.forward_origin
    if isinstance(origin, MessageOriginHiddenUser | MessageOriginUser):
        is_hidden = isinstance(origin, MessageOriginHiddenUser)
        name = origin.sender_user_name if is_hidden else origin.sender_user.full_name
        return "" if is_plain_name(name) else name
    chat = getattr(origin, "chat", None) or getattr(origin, "sender_chat", None)
    return _chat_title(chat) if isinstance(chat, Chat) else ""


def read_attached_links(message: Message) -> Iterator[str]:
    """Yields the link targets in checklists and games, and the chats of shared stories and giveaways."""
    if message.checklist is not None:
        yield from entity_links(message.checklist.title, message.checklist.title_entities)
        for task in message.checklist.tasks:
            yield from entity_links(task.text, task.text_entities)
    if message.game is not None:
        yield from entity_links(message.game.text or "", message.game.text_entities)
    if message.checklist_tasks_added is not None:
        for task in message.checklist_tasks_added.tasks:
            yield from entity_links(task.text, task.text_entities)
    if message.poll is not None:
        yield from entity_links(message.poll.description or "", message.poll.description_entities)
        yield from entity_links(message.poll.explanation or "", message.poll.explanation_entities)
    chats = list(message.giveaway.chats) if message.giveaway is not None else []
    if message.story is not None and message.story.chat.type == "channel":
        chats.append(message.story.chat)
    yield from (f"https://t.me/{chat.username}" for chat in chats if chat.username)


def read_button_texts(markup: InlineKeyboardMarkup | None) -> Iterator[str]:
    """Yields the labels of buttons with a link, and the texts that buttons copy."""
    for row in markup.inline_keyboard if markup is not None else ():
        for button in row:
            if button.url or button.web_app or button.login_url or button.copy_text:
                yield button.text
            if button.copy_text:
                yield button.copy_text.text


def entity_links(text: str, entities: list[MessageEntity] | None) -> Iterator[str]:
    """Yields the link targets of a text."""
    for entity in entities or ():
        if entity.type in {MessageEntityType.URL, MessageEntityType.MENTION}:
            yield entity.extract_from(text)
        elif entity.type == MessageEntityType.TEXT_LINK and entity.url:
            yield entity.url


def read_outside_quotation(message: Message) -> str | None:
    """Returns everything that a quotation from another chat shows; None for a message without one."""
    outside, story = message.external_reply, message.reply_to_story
    if outside is None:
        return _chat_title(story.chat) if story is not None and story.chat.id != message.chat.id else None
    if outside.chat is not None and outside.chat.id == message.chat.id:
        # Another topic of the same group.
        return None
    source = outside.chat or getattr(outside.origin, "chat", None) or getattr(outside.origin, "sender_chat", None)
    preview = outside.link_preview_options
    words = [
        message.quote.text if message.quote is not None else "",
        *read_attached_words(outside),
        _chat_title(source) if isinstance(source, Chat) else "",
        (preview.url or "") if preview is not None else "",
    ]
    return "\n".join(word for word in words if word)


def _poll_words(poll: Poll) -> Iterator[str]:
    yield poll.question
    yield from (option.text for option in poll.options)
    yield poll.description or ""
    yield poll.explanation or ""


def _file_names(message: Message | ExternalReplyInfo) -> Iterator[str]:
    """Yields names that people chose; their separators become spaces, so that the words can be found."""
    audio = message.audio
    if audio is not None:
        yield " ".join(part for part in (audio.performer, audio.title) if part)
    if message.animation is not None:
        # An animation is a document, too; its name is a program's.
        return
    for file in (message.document, message.video, audio):
        name = file.file_name if file is not None else None
        if name and not _PLAIN_FILE_NAME.fullmatch(name):
            yield name.replace("_", " ")


def _offers(message: Message | ExternalReplyInfo) -> Iterator[str]:
    game, invoice, giveaway = message.game, message.invoice, message.giveaway
    if game is not None:
        yield from (game.title, game.description, getattr(game, "text", None) or "")
    if invoice is not None:
        yield from (invoice.title, invoice.description)
    if giveaway is not None:
        yield giveaway.prize_description or ""
        yield from map(_chat_title, giveaway.chats)


def _chat_title(chat: Chat) -> str:
    """Returns the title of a channel or group; a person's own name says nothing about them."""
    return chat.title or ""

"""Reads the words and links that a message carries outside its text: cards, files, polls, checklists, buttons."""

import re
from collections.abc import Iterator

from aiogram.enums import MessageEntityType
from aiogram.types import Chat, ExternalReplyInfo, InlineKeyboardMarkup, Message, MessageEntity, Poll

_PLAIN_FILE_NAME = re.compile(
    r"(?:(?:img|dsc|dcim|pxl|vid|video|mov|photo|image|screenshot|screen|scan|document|doc|file|audio|voice|rec|recording"
    r"|whatsapp|telegram|изображение|фото|видео|документ|файл|скриншот|from|at|of|и|от|\d+|[a-f\d]{8,})[\W_]*)+\.?\w{0,5}",
    re.IGNORECASE,
)
"""A name that a camera or a program gave: it says nothing."""
_VCARD_WORDS = re.compile(r"^(?:NOTE|URL|ORG|TITLE)[^:\n]{0,60}:(.{1,300})$", re.MULTILINE | re.IGNORECASE)


def read_attached_words(message: Message | ExternalReplyInfo) -> Iterator[str]:
    """Yields the words of everything attached to a message; of a quoted one, too."""
    contact, venue, checklist = message.contact, message.venue, message.checklist
    if message.poll is not None:
        yield from _poll_words(message.poll)
    if contact is not None:
        yield " ".join(name for name in (contact.first_name, contact.last_name) if name)
        yield from (found[1].strip() for found in _VCARD_WORDS.finditer(contact.vcard or ""))
    if venue is not None:
        yield from (venue.title, venue.address)
    if checklist is not None:
        yield checklist.title
        yield from (task.text for task in checklist.tasks)
    if message.story is not None:
        yield _chat_title(message.story.chat)
    yield from _file_names(message)
    yield from _offers(message)


def read_attached_links(message: Message) -> Iterator[str]:
    """Yields the link targets in checklists and games, and the chats of shared stories and giveaways."""
    if message.checklist is not None:
        yield from entity_links(message.checklist.title, message.checklist.title_entities)
        for task in message.checklist.tasks:
            yield from entity_links(task.text, task.text_entities)
    if message.game is not None:
        yield from entity_links(message.game.text or "", message.game.text_entities)
    if message.poll is not None:
        yield from entity_links(message.poll.description or "", message.poll.description_entities)
        yield from entity_links(message.poll.explanation or "", message.poll.explanation_entities)
    chats = list(message.giveaway.chats) if message.giveaway is not None else []
    if message.story is not None and message.story.chat.type == "channel":
        chats.append(message.story.chat)
    yield from (f"https://t.me/{chat.username}" for chat in chats if chat.username)


def read_button_texts(markup: InlineKeyboardMarkup | None) -> Iterator[str]:
    """Yields the texts of buttons that lead somewhere."""
    for row in markup.inline_keyboard if markup is not None else ():
        for button in row:
            if button.url or button.web_app or button.login_url:
                yield button.text


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

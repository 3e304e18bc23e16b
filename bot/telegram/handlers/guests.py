"""Handler of guest mode: a mention in a chat that the bot is not in, answered through its inline message."""

from typing import cast

import structlog
from aiogram import Bot, Router
from aiogram.methods import AnswerGuestQuery, EditMessageText, TelegramMethod
from aiogram.types import InlineQueryResultArticle, InputTextMessageContent, Message

from bot.telegram.api.errors import describe_api_error
from bot.telegram.api.files import FileReader, Unreadable
from bot.telegram.api.updates import message_speaker, strip_mention, to_incoming
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.failures import API_ERRORS
from bot.telegram.markdown.pages import Pages, RenderThread
from bot.telegram.markdown.render import Rendered
from core.errors import ProviderError
from core.i18n import Texts
from core.messages import Surface, chat_ref, user_ref
from services.chat.guests import GuestAnswers

log = structlog.get_logger()


class GuestHandlers:
    """Answers a guest query: a placeholder at once, which then becomes the answer.

    A query is answered once: after a crash in between the placeholder stays, since only the process knows its id.
    """

    def __init__(
        self, *, guests: GuestAnswers, delivery: Delivery, files: FileReader, renderer: RenderThread, texts: Texts
    ) -> None:
        self._guests = guests
        self._delivery = delivery
        self._files = files
        self._renderer = renderer
        self._texts = texts

    def router(self) -> Router:
        """Returns the router."""
        router = Router(name="guests")
        router.guest_message.register(self.answer)
        return router

    async def answer(self, message: Message, bot: Bot) -> None:
        """Answers a mention; over a limit of the person there is no answer at all."""
        user = message.from_user
        if message.guest_query_id is None or user is None or user.is_bot or message.sender_chat is not None:
            return
        owner, private_chat = user_ref(Surface.TELEGRAM, user.id), chat_ref(Surface.TELEGRAM, user.id)
        if not await self._guests.admits(owner, private_chat):
            log.info("guest.not_admitted", user_id=user.id)
            return
        language = message_speaker(message).language
        inline_id = await self._post_placeholder(bot, message.guest_query_id, language)
        if inline_id is None:
            return
        incoming = await to_incoming(message, bot, await strip_mention(message, bot), (), self._files)
        if isinstance(incoming, Unreadable):
            rendered = Rendered(self._texts.get(incoming.key, language, **incoming.arguments))
        else:
            try:
                rendered = await self._render(await self._guests.answer(incoming, owner, private_chat))
            except ProviderError as error:
                log.info("guest.not_answered", error=type(error).__name__)
                rendered = Rendered(self._texts.get("failed-all-providers", language))
        if rendered.blank:
            rendered = Rendered(self._texts.get("empty-answer", language))
        method = EditMessageText(
            inline_message_id=inline_id, text=rendered.text, entities=list(rendered.entities) or None, parse_mode=None
        )
        # An inline message is answered with True, which the type of the method does not say.
        error = await self._delivery.attempt(cast("TelegramMethod[bool]", method), user.id)
        log.info("guest.answered", is_shown=error is None, user_id=user.id)

    async def _post_placeholder(self, bot: Bot, query_id: str, language: str | None) -> str | None:
        """Returns the id of the inline message; None where the query is too old or was answered before."""
        text = self._texts.get("guest-waiting", language)
        article = InlineQueryResultArticle(
            id="answer", title=text, input_message_content=InputTextMessageContent(message_text=text, parse_mode=None)
        )
        try:
            sent = await bot(AnswerGuestQuery(guest_query_id=query_id, result=article))
        except API_ERRORS as error:
            log.info("guest.query_refused", reason=describe_api_error(error))
            return None
        return sent.inline_message_id

    async def _render(self, markdown: str) -> Rendered:
        """Returns the first page of an answer: an inline message has no second one."""
        pages = Pages(most=1)
        await self._renderer.fill(pages, markdown)
        return pages.all[0].rendered if pages.all else Rendered("")

"""Answers a message in a chat: runs the turn, streams its reply, records the messages that hold it."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from aiogram import Bot
from aiogram.types import InlineKeyboardButton, InlineKeyboardMarkup, Message

from bot.telegram.answers.answer_messages import AnswerSends, Keyboards, Place, SendRecovery
from bot.telegram.answers.keyboards import (
    RetryAnswer,
    SendPictureFile,
    ShowRetryProviders,
    approval_rows,
    build_keyboard,
    button,
    consent_keyboard,
    continue_row,
    stop_keyboard,
)
from bot.telegram.answers.streamed_message import AnswerDisplay, StreamedAnswer
from bot.telegram.api.files import FileReader, Unreadable
from bot.telegram.api.updates import is_group, to_incoming
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.outgoing import FileShape, OutgoingFile
from bot.telegram.delivery.replies import Replies
from bot.telegram.markdown.render import Rendered
from core.clock import Clock
from core.i18n import Texts
from core.messages import ChatKind, Incoming
from services.chat.media.voice import VoiceReplies
from services.chat.reply import ActiveReplies, AskedCall, Reply, ReplyPhase
from services.chat.service import ChatService
from services.chat.turn import TurnRequest

log = structlog.get_logger()

TEXT_WINDOW_S = 0.3
"""Time for which text is collected before it is read: an answer is shown once a second. Measured: it halves the CPU of
a stream of 100 pieces a second, and a window of 50 ms gains nothing at 20 pieces a second."""
ACKNOWLEDGEMENT = "👀"
VOICE_PAGE = -100
"""Number of the voice message among the pages of an answer."""
LAST_EDIT_S = 3.0
"""Time that a shutdown waits for the last edit of an answer."""


@dataclass(frozen=True, slots=True)
class PendingAnswer:
    """An answer that a handler has prepared, and that the worker produces after the handler has returned.

    The update, and the frames of the dispatcher that routed it, would take 22 KiB while the answer is written.
    """

    produce: Callable[[], Coroutine[Any, Any, None]]


class Responder:
    """Answers messages in chats.

    Args:
        files: reads the files of messages.
        recovery: records which messages hold an answer, and finds those that a killed process could not record.
        providers: returns the ids of all usable providers.
        voice: speaks answers; None where no provider for that is configured.
    """

    def __init__(  # noqa: PLR0913 - what an answer is made of and shown by
        self,
        *,
        bot: Bot,
        files: FileReader,
        chat: ChatService,
        delivery: Delivery,
        active: ActiveReplies,
        recovery: SendRecovery,
        texts: Texts,
        clock: Clock,
        display: AnswerDisplay,
        providers: Callable[[], Sequence[str]],
        voice: VoiceReplies | None = None,
    ) -> None:
        self._bot = bot
        self._files = files
        self._replies = Replies(delivery, texts)
        self._chat = chat
        self._delivery = delivery
        self._active = active
        self._recovery = recovery
        self._texts = texts
        self._clock = clock
        self._display = display
        self._providers = providers
        self._voice = voice

    async def prepare(self, message: Message, text: str, album: Sequence[Message], job: str) -> PendingAnswer | None:
        """Converts a message and returns its answer; None if it cannot be read, which its author is told.

        Args:
            text: the part of its text that addresses the bot.
            album: every part of its album; empty for a single message.
            job: id of the inbox job.
        """
        incoming = await to_incoming(message, self._bot, text, album, self._files)
        if isinstance(incoming, Unreadable):
            await self._replies.say(message, incoming.key, **incoming.arguments)
            return None
        question_id = message.message_id if is_group(message) else None
        return PendingAnswer(partial(self.answer, TurnRequest(incoming, origin=job), reply_to=question_id))

    async def answer(self, request: TurnRequest, *, reply_to: int | None = None) -> None:
        """Answers a message, or a turn again. Returns when everything is delivered.

        Args:
            request: a retried job continues in the messages it already sent.
            reply_to: id of the message that the answer replies to, in a group.
        """
        async with self._acknowledgement(request.incoming, reply_to):
            await self._answer(request, Reply(TEXT_WINDOW_S), reply_to)

    @asynccontextmanager
    async def _acknowledgement(self, incoming: Incoming, question_id: int | None) -> AsyncGenerator[None]:
        """Shows a reaction on a question in a group until it is answered, where the operator wants it."""
        if question_id is None or not self._display.acknowledges:
            yield
            return
        chat_id = incoming.key.chat_id
        await self._delivery.react(chat_id, question_id, ACKNOWLEDGEMENT)
        try:
            yield
        finally:
            await self._delivery.react(chat_id, question_id, None)

    async def _answer(self, request: TurnRequest, reply: Reply, reply_to: int | None) -> None:
        incoming = request.incoming
        with self._active.register(incoming.key, reply) as number:
            sends = AnswerSends(self._recovery, incoming.key.chat_id, reply)
            streamed = self._build_streamed(incoming, reply, number, reply_to, sends)
            turn = asyncio.create_task(self._chat.respond(request, reply), name="turn")
            show = asyncio.create_task(streamed.show(), name="show")
            try:
                await asyncio.wait([turn])
                if (error := turn.exception()) is not None:
                    log.error("answer.turn_failed", exc_info=error)
                    reply.end(ReplyPhase.FAILED, self._texts.get("failed-unexpected", incoming.speaker.language))
                await asyncio.wait([show])
                await show
                await self._speak(incoming, reply, sends)
                sends.close()
            except asyncio.CancelledError:
                await self._interrupt(turn, show)
                raise
            finally:
                for task in (turn, show):
                    task.cancel()

    async def _speak(self, incoming: Incoming, reply: Reply, sends: AnswerSends) -> None:
        """Sends the answer as a voice message too, if its chat chose that."""
        sound = await self._voice.speak(incoming, reply) if self._voice is not None else None
        if sound is None or await sends.begin(VOICE_PAGE) is not None:
            return
        outcome = await self._delivery.post(
            incoming.key.chat_id,
            Rendered(""),
            topic_id=incoming.key.topic_id or None,
            file=OutgoingFile("answer.ogg", sound, FileShape.VOICE),
        )
        if outcome.sent is not None:
            await sends.record(VOICE_PAGE, outcome.sent.message_id)

    def _build_streamed(
        self, incoming: Incoming, reply: Reply, number: int, reply_to: int | None, sends: AnswerSends
    ) -> StreamedAnswer:
        language = incoming.speaker.language
        return StreamedAnswer(
            delivery=self._delivery,
            clock=self._clock,
            reply=reply,
            place=Place(
                chat_id=incoming.key.chat_id,
                is_group=incoming.chat_kind is ChatKind.GROUP,
                topic_id=incoming.key.topic_id or None,
                reply_to=reply_to,
            ),
            keyboards=Keyboards(
                live=partial(stop_keyboard, self._texts, language, number),
                final=lambda: self._final_keyboard(reply, language),
                picture=lambda number: self._picture_keyboard(reply, language, number),
            ),
            display=self._display,
            text=lambda key: self._texts.get(key, language),
            sends=sends,
        )

    def _picture_keyboard(self, reply: Reply, language: str | None, number: int) -> InlineKeyboardMarkup | None:
        if reply.turn_id is None:
            return None
        as_file = SendPictureFile(turn=reply.turn_id, number=number)
        return build_keyboard([[button(self._texts.get("button-picture-file", language), as_file)]])

    def _final_keyboard(self, reply: Reply, language: str | None) -> InlineKeyboardMarkup | None:
        if reply.turn_id is None or reply.is_handed_back:
            return None
        if reply.needs_consent:
            return consent_keyboard(self._texts, language, reply.turn_id)
        return answer_keyboard(
            self._texts,
            language,
            reply.turn_id,
            elsewhere=len(self._providers()) > 1,
            is_cut=reply.is_cut,
            calls=reply.asked_calls,
        )

    async def _interrupt(self, turn: asyncio.Task[None], show: asyncio.Task[None]) -> None:
        """Delivers the text so far at shutdown, with a line that the rest will follow."""
        turn.cancel()
        await asyncio.wait([turn])
        _, pending = await asyncio.wait([show], timeout=LAST_EDIT_S)
        if pending:
            log.error("answer.last_edit_timed_out")


def answer_keyboard(
    texts: Texts,
    language: str | None,
    turn: int,
    *,
    elsewhere: bool,
    is_cut: bool = False,
    calls: Sequence[AskedCall] = (),
) -> InlineKeyboardMarkup:
    """Builds the keyboard of a finished answer; `elsewhere` if there is more than one provider."""
    buttons = {"button-retry": RetryAnswer(turn=turn).pack()}
    if elsewhere:
        buttons["button-retry-elsewhere"] = ShowRetryProviders(turn=turn).pack()
    # The two labels fit on a phone in each language, as a test checks.
    row = [InlineKeyboardButton(text=texts.label(key, language), callback_data=data) for key, data in buttons.items()]
    if not is_cut and not calls:
        return InlineKeyboardMarkup(inline_keyboard=[row])
    first = [*approval_rows(texts, language, calls), *continue_row(texts, language, turn, is_cut=is_cut)]
    return build_keyboard([*first, row])

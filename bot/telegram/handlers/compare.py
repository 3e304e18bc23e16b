"""Handlers of `/compare`, of votes about its answers, and of thumbs under answers."""

import asyncio
from collections.abc import Sequence
from functools import partial

import structlog
from aiogram import Bot, Router
from aiogram.filters import CommandObject
from aiogram.filters.callback_data import CallbackData
from aiogram.types import CallbackQuery, InlineKeyboardMarkup, Message, MessageReactionUpdated

from bot.operators.votes import VoteReports
from bot.telegram.answers.answer_messages import Keyboards, Place
from bot.telegram.answers.keyboards import build_keyboard, button, stop_keyboard
from bot.telegram.answers.streamed_message import AnswerDisplay, StreamedAnswer
from bot.telegram.api.files import FileReader
from bot.telegram.api.filters import Command, find_thumb
from bot.telegram.api.updates import Unreadable, conversation_key, is_group, message_speaker, to_incoming
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.replies import edit_text, reply_to
from bot.telegram.markdown.render import Rendered
from core.background import cancel_and_wait
from core.clock import Clock
from core.i18n import Texts
from core.messages import Incoming, Surface, UserRef, user_ref
from services.chat.reply import ActiveReplies, Reply, ReplyPhase
from services.compare.contest import Contender, Contest, Contests, PairUnavailable
from services.compare.votes import Votes, Winner

log = structlog.get_logger()

SIDES = ("A", "B")
TEXT_WINDOW_S = 0.3
"""Time for which text is collected before it is read, as for other answers."""
LAST_EDIT_S = 3.0
"""Time that a shutdown waits for the last edit of both answers."""


class CastVote(CallbackData, prefix="vote"):
    """Votes on a comparison."""

    number: int
    winner: str


_UNREADABLE = {"nothing-asked": "compare-usage", "cannot-hear-audio": "compare-no-recordings"}
"""Lines of a comparison for messages that cannot be compared."""


class CompareHandlers:
    """Answers a question by two models side by side, in two messages, and takes votes.

    Args:
        active: answers in progress, so that Stop finds both sides.
        admin_ids: people who may name any live model of a provider with `<ID>_LIVE_MODELS=admins`.
    """

    def __init__(  # noqa: PLR0913 - the services of a command
        self,
        *,
        contests: Contests,
        votes: Votes,
        reports: VoteReports,
        active: ActiveReplies,
        delivery: Delivery,
        display: AnswerDisplay,
        texts: Texts,
        clock: Clock,
        files: FileReader,
        admin_ids: frozenset[int],
    ) -> None:
        self._contests = contests
        self._votes = votes
        self._reports = reports
        self._active = active
        self._delivery = delivery
        # Two drafts at once cannot be told apart: a comparison is edited.
        self._display = AnswerDisplay("edit" if display.mode == "draft" else display.mode, display.renderer)
        self._texts = texts
        self._clock = clock
        self._files = files
        self._admin_ids = admin_ids

    def router(self) -> Router:
        """Returns the router."""
        router = Router(name="compare")
        router.message.register(self.compare, Command("compare"))
        router.callback_query.register(self.vote, CastVote.filter())
        router.message_reaction.register(self.react)
        return router

    async def compare(
        self, message: Message, bot: Bot, command: CommandObject, album: Sequence[Message], job: str
    ) -> None:
        """Runs `/compare QUESTION`, `/compare a/m b/m QUESTION` and `/compare stats`."""
        speaker, arguments = message_speaker(message), command.args or ""
        if arguments.strip().lower() == "stats":
            await reply_to(self._delivery, message, await self._reports.standings(speaker.language))
            return
        try:
            contest = await self._contests.prepare(
                arguments, conversation_key(message).chat_ref, is_admin=speaker.user_id in self._admin_ids
            )
        except PairUnavailable as error:
            text = self._texts.get(error.key, speaker.language, **error.arguments)
            await reply_to(self._delivery, message, text)
            return
        incoming = await to_incoming(message, bot, contest.question, album, self._files)
        if isinstance(incoming, Unreadable):
            key = _UNREADABLE.get(incoming.key, incoming.key)
            text = self._texts.get(key, speaker.language, **incoming.arguments)
            await reply_to(self._delivery, message, text)
            return
        await self._run(contest, incoming, message, job)

    async def vote(self, query: CallbackQuery, callback_data: CastVote) -> None:
        """Stores the vote of the asker, and names the models."""
        language = query.from_user.language_code
        winner = next((each for each in Winner if each.value == callback_data.winner), None)
        found = None
        if winner is not None:
            found = await self._votes.vote(callback_data.number, _telegram_user(query.from_user.id), winner)
        if found is None:
            await self._delivery.answer_callback(query.id, self._texts.get("compare-not-yours", language))
            return
        await self._delivery.answer_callback(query.id)
        if isinstance(query.message, Message):
            await edit_text(self._delivery, query.message, self._reports.result(found, language))

    async def react(self, changed: MessageReactionUpdated) -> None:
        """Stores a thumb under an answer as a vote about its model."""
        thumb = find_thumb(changed)
        if thumb is not None and changed.user is not None:
            voter = _telegram_user(changed.user.id)
            await self._votes.react(Surface.TELEGRAM, changed.chat.id, changed.message_id, voter, thumb)

    async def _run(self, contest: Contest, incoming: Incoming, message: Message, job: str) -> None:
        place = Place(
            chat_id=incoming.key.chat_id,
            is_group=is_group(message),
            topic_id=incoming.key.topic_id or None,
            reply_to=message.message_id if is_group(message) else None,
        )
        # Sent before anything is asked: side A stands above side B, and a job that is repeated finds both again.
        shown = [await self._open_side(side, place, incoming.speaker.language) for side in SIDES]
        if None in shown:
            return
        control, replies = Reply(), [Reply(TEXT_WINDOW_S) for _ in SIDES]
        for reply, message_id in zip(replies, shown, strict=True):
            reply.earlier_ids = (message_id,) if message_id is not None else ()
            reply.stream_mode = "off" if contest.stream_mode == "off" else self._display.mode
        with self._active.register(incoming.key, control) as number:
            await self._stream(contest, incoming, place, control, replies, number)
        if all(reply.phase is ReplyPhase.COMPLETE for reply in replies):
            await self._ask_for_vote(contest, incoming, message, job)

    async def _open_side(self, side: str, place: Place, language: str | None) -> int | None:
        text = self._texts.get("compare-waiting", language, side=side)
        sent = await self._delivery.send(
            place.chat_id, Rendered(text), topic_id=place.topic_id, reply_to=place.reply_to
        )
        return sent.message_id if sent is not None else None

    async def _stream(
        self,
        contest: Contest,
        incoming: Incoming,
        place: Place,
        control: Reply,
        replies: Sequence[Reply],
        number: int,
    ) -> None:
        """Streams both sides until both have ended and are delivered."""
        asking = [
            asyncio.create_task(self._ask(contest, each, side, incoming, reply), name=f"compare.{side}")
            for each, side, reply in zip(contest.contenders, SIDES, replies, strict=True)
        ]
        for reply, task in zip(replies, asking, strict=True):
            reply.on_stop(task.cancel)
        control.on_stop(lambda: [reply.stop() for reply in replies])
        showing = [
            asyncio.create_task(
                self._build_streamed(incoming.speaker.language, reply, place, number).show(),
                name=f"compare.show.{side}",
            )
            for side, reply in zip(SIDES, replies, strict=True)
        ]
        try:
            await asyncio.wait([*asking, *showing])
        except asyncio.CancelledError:
            await cancel_and_wait(*asking)
            await asyncio.wait(showing, timeout=LAST_EDIT_S)
            raise
        finally:
            await cancel_and_wait(*asking, *showing)
        for task in showing:
            task.result()

    async def _ask(self, contest: Contest, contender: Contender, side: str, incoming: Incoming, reply: Reply) -> None:
        reply.write(f"**{side}**\n\n")
        try:
            await self._contests.answer(contest, contender, incoming, reply)
        finally:
            # A bug must not leave the display waiting.
            reply.end(ReplyPhase.FAILED, self._texts.get("failed-unexpected", incoming.speaker.language))

    def _build_streamed(self, language: str | None, reply: Reply, place: Place, number: int) -> StreamedAnswer:
        return StreamedAnswer(
            delivery=self._delivery,
            clock=self._clock,
            reply=reply,
            place=place,
            keyboards=Keyboards(live=partial(stop_keyboard, self._texts, language, number), final=lambda: None),
            display=self._display,
            text=lambda key: self._texts.get(key, language),
        )

    async def _ask_for_vote(self, contest: Contest, incoming: Incoming, message: Message, job: str) -> None:
        first, second = contest.contenders
        number = await self._votes.open(incoming.user_ref, (first.name, second.name), job)
        language = incoming.speaker.language
        text = self._texts.get("compare-question", language)
        await reply_to(self._delivery, message, text, self._vote_keyboard(number, language))

    def _vote_keyboard(self, number: int, language: str | None) -> InlineKeyboardMarkup:
        tie = button(self._texts.get("button-tie", language), CastVote(number=number, winner=Winner.TIE.value))
        sides = [
            button(side, CastVote(number=number, winner=winner.value))
            for side, winner in zip(SIDES, (Winner.A, Winner.B), strict=True)
        ]
        return build_keyboard([sides, [tie]])


def _telegram_user(user_id: int) -> UserRef:
    return user_ref(Surface.TELEGRAM, user_id)

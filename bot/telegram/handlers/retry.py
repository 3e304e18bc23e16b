"""Retry, Retry elsewhere and Continue: enqueues turns to answer again."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from aiogram import Bot, Router
from aiogram.filters.callback_data import CallbackData
from aiogram.types import CallbackQuery, InlineKeyboardMarkup, Message, Update, User

from bot.telegram.answers.keyboards import (
    AnswerEdited,
    ContinueAnswer,
    RetryAnswer,
    ShowRetryProviders,
    build_keyboard,
    button,
    continue_row,
    has_continue_button,
)
from bot.telegram.answers.responder import Responder, answer_keyboard
from bot.telegram.api.files import FileReader, Unreadable
from bot.telegram.api.filters import AddressedQuestion, UserContent
from bot.telegram.api.group_admins import GroupAdmins
from bot.telegram.api.updates import conversation_key, is_group, message_speaker, to_incoming, to_speaker
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.ingress.classification import create_job
from bot.telegram.jobs import RegenerateTurn
from core.errors import StorageError
from core.i18n import Texts
from core.messages import ChatKind, Incoming, Speaker
from services.chat.prompts import prompt_text, to_prompt
from services.chat.store.conversation import Turn, TurnStatus
from services.chat.store.turns import TurnStore
from services.chat.turn import TurnRequest
from services.inbox.job import Job, JobSink
from services.llm.request import ModelChoice
from services.llm.routing.fallback import LLMProviderFallback
from services.moderation.domain.ports import Standing


class RegenerateQueue:
    """Enqueues turns to answer again."""

    def __init__(self, bot: Bot, inbox: JobSink) -> None:
        self._bot = bot
        self._inbox = inbox

    async def enqueue(
        self,
        update: Update,
        turn: Turn,
        message: Message,
        user: User,
        *,
        provider: str | None,
        only_latest: bool,
        continues: bool = False,
        edited: bool = False,
    ) -> bool:
        """Enqueues a turn; returns False if its conversation's lane is full. Idempotent per update.

        Args:
            update: the button press.
            turn: the turn to answer again.
            message: the message with the button.
            user: the user who pressed it.
            provider: id of the provider to ask first, for this answer only.
            edited: answer the question as its author edited it.
            continues: ask for the rest of the answer instead of another one.
            only_latest: drop the job if the turn is no longer the latest of its conversation.
        """
        question = message.reply_to_message
        payload = RegenerateTurn(
            turn=turn.id,
            speaker=_find_speaker(turn, message, user),
            chat_kind=ChatKind.GROUP if is_group(message) else ChatKind.PRIVATE,
            chat_title=message.chat.title,
            reply_to=question.message_id if question is not None and is_group(message) else None,
            provider=provider,
            only_latest=only_latest,
            continues=continues,
            edited=edited,
        )
        job = create_job(self._bot.id, update.update_id, str(turn.thread.key), payload, is_limited=True)
        # The button press itself is a job under the plain id.
        return not await self._inbox.put([replace(job, id=f"{job.id}+")])


class RegeneratedTurns:
    """Answers turns again, as their jobs ask for it."""

    def __init__(self, turns: TurnStore, responder: Responder, texts: Texts) -> None:
        self._turns = turns
        self._responder = responder
        self._texts = texts

    async def answer(self, request: RegenerateTurn, job: Job) -> None:
        """Answers a turn again, unless it is gone or no longer the one to answer."""
        turn = await self._turns.turn(request.turn, edited=request.edited)
        if turn is None or turn.prompt is None:
            return
        # Checked now that the job runs: the button may have been pressed twice before it disappeared. A job that is
        # repeated finds the turn that it created itself as the latest.
        with suppress(StorageError):
            latest = await self._turns.last_turn(turn.thread.key)
            if request.only_latest and latest is not None and latest.id != turn.id and latest.origin != job.id:
                return
            if turn.status is TurnStatus.SUPERSEDED and (latest is None or latest.origin != job.id):
                return
        incoming = Incoming(
            key=turn.thread.key,
            chat_kind=request.chat_kind,
            speaker=request.speaker,
            text=self._texts.get("continue-prompt", request.speaker.language) if request.continues else "",
            sent_at=turn.created_at,
            chat_title=request.chat_title,
        )
        choice = ModelChoice(request.provider) if request.provider is not None else None
        retry_of = None if request.continues else turn
        again = TurnRequest(incoming, retry_of, choice, origin=job.id)
        await self._responder.answer(again, reply_to=request.reply_to)


def _find_speaker(turn: Turn, message: Message, user: User) -> Speaker:
    """Returns the author of a turn, also where an admin pressed the button: the answer counts as the author's."""
    if user.id == turn.speaker_id:
        return to_speaker(user)
    question = message.reply_to_message
    if question is not None and message_speaker(question).user_id == turn.speaker_id:
        return message_speaker(question)
    return Speaker(turn.speaker_id, message.chat.full_name, user.language_code)


class ShowAnswerButtons(CallbackData, prefix="back"):
    """Shows the keyboard of the answer again."""

    turn: int


class RetryWithProvider(CallbackData, prefix="with"):
    """Regenerates the answer of a turn with this provider first."""

    turn: int
    provider: str


def elsewhere_keyboard(
    texts: Texts, language: str | None, turn: int, providers: Sequence[str], *, is_cut: bool = False
) -> InlineKeyboardMarkup:
    """Builds the list of providers to retry with; a cut answer keeps its Continue button."""
    more = continue_row(texts, language, turn, is_cut=is_cut)
    rows = [[button(provider, RetryWithProvider(turn=turn, provider=provider))] for provider in providers]
    return build_keyboard([*more, *rows, [button(texts.get("button-back", language), ShowAnswerButtons(turn=turn))]])


class RetryHandlers:
    """Enqueues the latest turn of a conversation to be answered again, for its asker only."""

    def __init__(
        self,
        *,
        regenerate: RegenerateQueue,
        delivery: Delivery,
        turns: TurnStore,
        fallback: LLMProviderFallback,
        admins: GroupAdmins,
        texts: Texts,
        files: FileReader,
    ) -> None:
        self._files = files
        self._admins = admins
        self._regenerate = regenerate
        self._delivery = delivery
        self._turns = turns
        self._fallback = fallback
        self._texts = texts

    def router(self) -> Router:
        """Returns the router."""
        router = Router(name="retry")
        router.callback_query.register(self.retry, RetryAnswer.filter())
        router.edited_message.register(self.note_edit, UserContent(), AddressedQuestion())
        router.callback_query.register(self.answer_edited, AnswerEdited.filter())
        router.callback_query.register(self.continue_answer, ContinueAnswer.filter())
        router.callback_query.register(self.retry_with, RetryWithProvider.filter())
        router.callback_query.register(self.pick_provider, ShowRetryProviders.filter())
        router.callback_query.register(self.go_back, ShowAnswerButtons.filter())
        return router

    async def retry(self, query: CallbackQuery, callback_data: RetryAnswer, event_update: Update) -> None:
        """Regenerates the answer."""
        await self._enqueue(query, event_update, callback_data.turn, None)

    async def continue_answer(self, query: CallbackQuery, callback_data: ContinueAnswer, event_update: Update) -> None:
        """Asks for the rest of an answer that was cut."""
        await self._enqueue(query, event_update, callback_data.turn, None, continues=True)

    async def note_edit(self, message: Message, bot: Bot, text: str) -> None:
        """Offers to answer the latest question anew if its author edited it: by a button under the answer."""
        latest = await self._turns.last_turn(conversation_key(message))
        if latest is None or latest.question_id != message.message_id or latest.prompt is None or not latest.answer_ids:
            return
        incoming = await to_incoming(message, bot, text, (), self._files)
        if isinstance(incoming, Unreadable):
            return
        prompt = to_prompt(incoming)
        if prompt_text(prompt) == prompt_text(latest.prompt):
            return
        await self._turns.note_edit(latest.id, prompt)
        language = incoming.speaker.language
        row = [button(self._texts.get("button-answer-edited", language), AnswerEdited(turn=latest.id))]
        several = len(self._fallback.providers) > 1
        markup = answer_keyboard(self._texts, language, latest.id, elsewhere=several)
        markup = build_keyboard([row, *markup.inline_keyboard])
        await self._delivery.edit_markup(message.chat.id, latest.answer_ids[-1], markup)

    async def answer_edited(self, query: CallbackQuery, callback_data: AnswerEdited, event_update: Update) -> None:
        """Answers the edited question; the new answer takes the place of this one."""
        await self._enqueue(query, event_update, callback_data.turn, None, edited=True)

    async def retry_with(self, query: CallbackQuery, callback_data: RetryWithProvider, event_update: Update) -> None:
        """Regenerates the answer with a chosen provider first."""
        await self._enqueue(query, event_update, callback_data.turn, callback_data.provider)

    async def pick_provider(self, query: CallbackQuery, callback_data: ShowRetryProviders) -> None:
        """Shows the providers."""
        found = await self._find_latest(query, callback_data.turn)
        if found is None:
            return
        message, turn = found
        language = query.from_user.language_code
        providers = [provider.id for provider in self._fallback.providers]
        await self._delivery.answer_callback(query.id, self._texts.get("retry-pick", language))
        is_cut = has_continue_button(message.reply_markup)
        markup = elsewhere_keyboard(self._texts, language, turn.id, providers, is_cut=is_cut)
        await self._edit_markup(message, markup)

    async def go_back(self, query: CallbackQuery, callback_data: ShowAnswerButtons) -> None:
        """Shows the keyboard of the answer again."""
        found = await self._find_latest(query, callback_data.turn)
        if found is None:
            return
        message, turn = found
        await self._delivery.answer_callback(query.id)
        has_several = len(self._fallback.providers) > 1
        markup = answer_keyboard(
            self._texts, query.from_user.language_code, turn.id,
            elsewhere=has_several, is_cut=has_continue_button(message.reply_markup),
        )  # fmt: skip
        await self._edit_markup(message, markup)

    async def _enqueue(
        self,
        query: CallbackQuery,
        update: Update,
        turn_id: int,
        provider: str | None,
        *,
        continues: bool = False,
        edited: bool = False,
    ) -> None:
        found = await self._find_latest(query, turn_id)
        if found is None:
            return
        message, turn = found
        accepted = await self._regenerate.enqueue(
            update, turn, message, query.from_user, provider=provider, only_latest=True,
            continues=continues, edited=edited,
        )  # fmt: skip
        text = None if accepted else self._texts.get("queue-full", query.from_user.language_code)
        await self._delivery.answer_callback(query.id, text)
        if accepted:
            await self._edit_markup(message, None)

    async def _find_latest(self, query: CallbackQuery, turn_id: int) -> tuple[Message, Turn] | None:
        """Returns the pressed message and its turn; None, with a note to the user, if it cannot be regenerated."""
        message, language = query.message, query.from_user.language_code
        turn = await self._turns.turn(turn_id)
        if (
            not isinstance(message, Message)
            or turn is None
            or turn.prompt is None
            or turn.thread.key != conversation_key(message)
        ):
            await self._delivery.answer_callback(query.id, self._texts.get("retry-gone", language))
            return None
        denial = await self._find_denial(message, query.from_user.id, turn)
        if denial is not None:
            await self._delivery.answer_callback(query.id, self._texts.get(denial, language), alert=True)
            return None
        latest = await self._turns.last_turn(turn.thread.key)
        if latest is None or latest.id != turn.id:
            await self._delivery.answer_callback(query.id, self._texts.get("retry-last-only", language))
            return None
        return message, turn

    async def _find_denial(self, message: Message, user_id: int, turn: Turn) -> str | None:
        """Returns the text key of the reason why a user may not retry a turn; None for its asker.

        Who asked in the name of a chat has no user id: there an admin of the group may.
        """
        if turn.speaker_id == user_id or not is_group(message):
            return None
        if turn.speaker_id > 0:
            return "retry-owner-only"
        standing = await self._admins.fetch_standing(message.chat.id, user_id)
        if standing is Standing.UNKNOWN:
            return "rights-unknown"
        return None if standing is Standing.ADMIN else "retry-owner-only"

    async def _edit_markup(self, message: Message, markup: InlineKeyboardMarkup | None) -> None:
        await self._delivery.edit_markup(message.chat.id, message.message_id, markup)

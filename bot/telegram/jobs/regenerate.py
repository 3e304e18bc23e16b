"""Enqueues turns to answer again: they wait in the inbox like any message, and run for who asked."""

from dataclasses import replace

from aiogram import Bot
from aiogram.types import Message, Update, User

from bot.telegram.api.messages import is_group, message_speaker, to_speaker
from bot.telegram.jobs.payloads import JobSink, RegenerateTurn, create_job
from core.messages import ChatKind, Speaker
from services.chat.store.conversation import Turn


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
    ) -> bool:
        """Enqueues a turn; returns False if its conversation's lane is full. Idempotent per update.

        Args:
            update: the button press.
            turn: the turn to answer again.
            message: the message with the button.
            user: the user who pressed it.
            provider: id of the provider to ask first, for this answer only.
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
        )
        job = create_job(self._bot.id, update.update_id, str(turn.thread.key), payload, is_limited=True)
        # The button press itself is a job under the plain id.
        return not await self._inbox.put([replace(job, id=f"{job.id}+")])


def _find_speaker(turn: Turn, message: Message, user: User) -> Speaker:
    """Returns the author of a turn, to whom the answer counts, also where an admin pressed the button."""
    if user.id == turn.speaker_id:
        return to_speaker(user)
    question = message.reply_to_message
    if question is not None and message_speaker(question).user_id == turn.speaker_id:
        return message_speaker(question)
    return Speaker(turn.speaker_id, message.chat.full_name, user.language_code)

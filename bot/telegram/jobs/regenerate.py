"""Enqueues turns that a user wants answered again: they wait in the inbox like any message."""

from dataclasses import replace

from aiogram import Bot
from aiogram.types import Message, Update, User

from bot.telegram.api.messages import is_group, to_speaker
from bot.telegram.jobs.payloads import JobSink, RegenerateTurn, create_job
from core.messages import ChatKind
from services.chat.store.conversation import Turn


class RegenerateQueue:
    """Enqueues turns to answer again."""

    def __init__(self, bot: Bot, inbox: JobSink) -> None:
        self._bot = bot
        self._inbox = inbox

    async def enqueue(
        self, update: Update, turn: Turn, message: Message, user: User, *, provider: str | None, only_latest: bool
    ) -> bool:
        """Enqueues a turn; returns False if its conversation's lane is full. Idempotent per update.

        Args:
            update: the button press.
            turn: the turn to answer again.
            message: the message with the button.
            user: the user who pressed it.
            provider: id of the provider to ask first, for this answer only.
            only_latest: drop the job if the turn is no longer the latest of its conversation.
        """
        question = message.reply_to_message
        payload = RegenerateTurn(
            turn=turn.id,
            speaker=to_speaker(user),
            chat_kind=ChatKind.GROUP if is_group(message) else ChatKind.PRIVATE,
            chat_title=message.chat.title,
            reply_to=question.message_id if question is not None and is_group(message) else None,
            provider=provider,
            only_latest=only_latest,
        )
        job = create_job(self._bot.id, update.update_id, str(turn.thread.key), payload, is_limited=True)
        # The button press itself is a job under the plain id.
        return not await self._inbox.put([replace(job, id=f"{job.id}+")])

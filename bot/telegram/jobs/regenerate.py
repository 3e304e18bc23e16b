"""An answer that somebody wants again: it waits for its turn in the inbox like any message."""

from dataclasses import replace

from aiogram import Bot
from aiogram.types import Message, Update, User

from bot.telegram.api.messages import is_group, to_speaker
from bot.telegram.jobs.payloads import JobSink, RegenerateTurn, create_job
from core.messages import ChatKind
from services.chat.store.conversation import Turn


class RegenerateQueue:
    """Has turns answered again.

    Args:
        bot: whose turns.
        inbox: keeps what is to be done.
    """

    def __init__(self, bot: Bot, inbox: JobSink) -> None:
        self._bot = bot
        self._inbox = inbox

    async def ask(
        self, update: Update, turn: Turn, message: Message, user: User, *, provider: str | None, only_latest: bool
    ) -> bool:
        """Have a turn answered again; False where too many messages wait there already.

        Args:
            update: the press of the button: the same one asks once.
            turn: what is to be answered.
            message: the message whose button was pressed.
            user: who pressed it.
            provider: who is asked first, for this answer only.
            only_latest: do it only if the turn is still the latest of its conversation.
        """
        asked = message.reply_to_message
        again = RegenerateTurn(
            turn=turn.id,
            speaker=to_speaker(user),
            chat_kind=ChatKind.GROUP if is_group(message) else ChatKind.PRIVATE,
            chat_title=message.chat.title,
            reply_to=asked.message_id if asked is not None and is_group(message) else None,
            provider=provider,
            only_latest=only_latest,
        )
        job = create_job(self._bot.id, update.update_id, str(turn.thread.key), again, is_limited=True)
        # The press itself has the plain number.
        return not await self._inbox.put([replace(job, id=f"{job.id}+")])

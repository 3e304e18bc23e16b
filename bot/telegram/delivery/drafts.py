"""Drafts: previews of messages in progress, which private chats show."""

from collections.abc import Awaitable, Callable

import structlog
from aiogram.methods import SendMessageDraft

from bot.telegram.api.errors import ApiFailure, classify_api_error
from bot.telegram.delivery.failures import API_ERRORS, SUCCEEDED, ChatHeld, describe_failure
from bot.telegram.delivery.outgoing import SendResult
from bot.telegram.markdown.render import Rendered

log = structlog.get_logger()


class Drafts:
    """Shows drafts, as long as the Bot API server has the method.

    Args:
        call: makes a call in a chat once; raises ChatHeld while flood control holds it.
    """

    def __init__(self, call: Callable[[SendMessageDraft, int], Awaitable[object]]) -> None:
        self._call = call
        self._is_supported = True

    async def show(self, chat_id: int, draft_id: int, rendered: Rendered, *, topic_id: int | None = None) -> SendResult:
        """Shows a draft.

        Args:
            draft_id: not 0; updates with the same id are animated.
            rendered: the text so far.
            topic_id: topic of the private chat.
        """
        if not self._is_supported:
            return SendResult.UNSUPPORTED
        method = SendMessageDraft(
            chat_id=chat_id,
            draft_id=draft_id,
            message_thread_id=topic_id,
            text=rendered.text,
            parse_mode=None,
            entities=list(rendered.entities) or None,
            can_stop=True,
        )
        try:
            await self._call(method, chat_id)
        except ChatHeld:
            return SendResult.SKIPPED
        except API_ERRORS as error:
            fault = classify_api_error(error)
            if fault in SUCCEEDED:
                return SendResult.SHOWN
            log.info("delivery.draft_failed", chat_id=chat_id, **describe_failure(error))
            if fault is ApiFailure.NO_METHOD:
                self._is_supported = False
            if fault in {ApiFailure.PASSING, ApiFailure.UNKNOWN, ApiFailure.ENTITIES}:
                return SendResult.SKIPPED
            return SendResult.UNREACHABLE if fault is ApiFailure.UNREACHABLE else SendResult.UNSUPPORTED
        return SendResult.SHOWN
